//! What is carried out within a session: Yubico's manual, "Command Reference".

use crate::device::{Device, error};
use crate::object::{Object, Params, Secret, capability, kind};

type Answer = Result<Vec<u8>, u8>;

impl Device {
    /// Carries out a command for the session of `auth_key`.
    pub(crate) fn execute(&mut self, auth_key: u16, code: u8, data: &[u8]) -> Answer {
        let caller = self.objects.get(&(kind::AUTHENTICATION_KEY, auth_key)).ok_or(error::INVALID_SESSION)?;
        let Object { domains, capabilities, delegated, .. } = *caller;
        let caller = Caller { domains, capabilities, delegated };
        match code {
            0x01 => Ok(data.to_vec()),
            0x06 => Ok(self.info()),
            // Its session is closed by whoever called.
            0x40 => Ok(Vec::new()),
            0x41 => Ok(STORAGE.to_vec()),
            0x42 => self.put_opaque(caller, data),
            0x43 => self.get_opaque(caller, data),
            0x44 => self.put_authentication(caller, data),
            0x45 => self.put_asymmetric(caller, data),
            0x46 => self.generate_asymmetric(caller, data),
            0x48 => self.list(caller, data),
            0x4d => caller.needs(capability::GET_LOG_ENTRIES).map(|()| self.log.read()),
            0x4e => self.object_info(caller, data),
            0x4f => self.set_option(caller, data),
            0x50 => self.get_option(caller, data),
            0x54 => self.public_key(caller, data),
            0x56 => self.sign_ecdsa(caller, data),
            0x58 => self.delete(caller, data),
            0x64 => self.sign_attestation(caller, data),
            0x67 => {
                caller.needs(capability::GET_LOG_ENTRIES)?;
                self.log.forget(u16::from_be_bytes(exactly(data)?));
                Ok(Vec::new())
            }
            0x6b => Ok(Vec::new()),
            0x08 => {
                caller.needs(capability::RESET_DEVICE)?;
                self.reset();
                Ok(Vec::new())
            }
            _ => Err(error::INVALID_COMMAND),
        }
    }

    fn put_opaque(&mut self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::PUT_OPAQUE)?;
        let (params, bytes) = Params::read(data)?;
        let id = params.id;
        if bytes.is_empty() || bytes.len() > MOST_OPAQUE {
            return Err(error::WRONG_LENGTH);
        }
        self.insert(caller, kind::OPAQUE, id, params.object(IMPORTED, Secret::Opaque(bytes.to_vec())))
    }

    fn get_opaque(&mut self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::GET_OPAQUE)?;
        let id = u16::from_be_bytes(exactly(data)?);
        if id == 0 {
            let how = self.attest;
            return Ok(self.attestation().device_certificate(how));
        }
        match &self.visible(caller, kind::OPAQUE, id)?.secret {
            Secret::Opaque(bytes) => Ok(bytes.clone()),
            Secret::Authentication(_) | Secret::Ecdsa(_) => Err(error::INVALID_DATA),
        }
    }

    fn put_authentication(&mut self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::PUT_AUTHENTICATION_KEY)?;
        let (params, rest) = Params::read(data)?;
        let (&delegated, key) = rest.split_first_chunk().ok_or(error::WRONG_LENGTH)?;
        let key = <[u8; 32]>::try_from(key).map_err(|_| error::WRONG_LENGTH)?;
        let id = params.id;
        let mut object = params.object(IMPORTED, Secret::Authentication(key));
        object.delegated = u64::from_be_bytes(delegated);
        self.insert(caller, kind::AUTHENTICATION_KEY, id, object)
    }

    fn put_asymmetric(&mut self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::PUT_ASYMMETRIC_KEY)?;
        let (params, scalar) = Params::read(data)?;
        let (id, secret) = (params.id, Secret::import(params.algorithm, scalar)?);
        self.insert(caller, kind::ASYMMETRIC_KEY, id, params.object(IMPORTED, secret))
    }

    fn generate_asymmetric(&mut self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::GENERATE_ASYMMETRIC_KEY)?;
        let (params, rest) = Params::read(data)?;
        if !rest.is_empty() {
            return Err(error::WRONG_LENGTH);
        }
        let (id, secret) = (params.id, Secret::generate(params.algorithm)?);
        self.insert(caller, kind::ASYMMETRIC_KEY, id, params.object(GENERATED, secret))
    }

    fn insert(&mut self, caller: Caller, kind: u8, id: u16, object: Object) -> Answer {
        if object.domains & !caller.domains != 0 {
            return Err(error::INSUFFICIENT_PERMISSIONS);
        }
        // Whoever makes an object gives it no more than he may give.
        if (object.capabilities | object.delegated) & !caller.delegated != 0 {
            return Err(error::INSUFFICIENT_PERMISSIONS);
        }
        let id = match id {
            0 => (1..u16::MAX).find(|id| !self.objects.contains_key(&(kind, *id))).ok_or(error::STORAGE_FAILED)?,
            id if self.objects.contains_key(&(kind, id)) => return Err(error::OBJECT_EXISTS),
            id => id,
        };
        self.put(kind, id, object);
        Ok(id.to_be_bytes().to_vec())
    }

    fn list(&self, caller: Caller, filters: &[u8]) -> Answer {
        let filters = Filter::read_all(filters)?;
        let mut listed = Vec::new();
        for ((kind, id), object) in &self.objects {
            if object.domains & caller.domains != 0 && filters.iter().all(|filter| filter.lets(*kind, *id, object)) {
                listed.extend_from_slice(&id.to_be_bytes());
                listed.extend_from_slice(&[*kind, object.sequence]);
            }
        }
        Ok(listed)
    }

    fn object_info(&self, caller: Caller, data: &[u8]) -> Answer {
        let [high, low, kind] = exactly(data)?;
        let id = u16::from_be_bytes([high, low]);
        self.visible(caller, kind, id).map(|object| object.info(kind, id))
    }

    fn set_option(&mut self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::PUT_OPTION)?;
        let (&[tag, high, low], value) = data.split_first_chunk().ok_or(error::WRONG_LENGTH)?;
        if usize::from(u16::from_be_bytes([high, low])) != value.len() {
            return Err(error::WRONG_LENGTH);
        }
        match (tag, value) {
            // What is fixed stays until the next factory reset.
            (FORCE_AUDIT, &[option @ 0..=2]) if self.force_audit != 2 => self.force_audit = option,
            (COMMAND_AUDIT, pairs) if pairs.len().is_multiple_of(2) => {
                for pair in pairs.chunks_exact(2) {
                    self.command_audit.insert(pair[0], pair[1]);
                }
            }
            _ => return Err(error::INVALID_DATA),
        }
        Ok(Vec::new())
    }

    fn get_option(&self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::GET_OPTION)?;
        match exactly(data)? {
            [FORCE_AUDIT] => Ok(vec![self.force_audit]),
            [COMMAND_AUDIT] => Ok(self.command_audit.iter().flat_map(|(code, option)| [*code, *option]).collect()),
            _ => Err(error::INVALID_DATA),
        }
    }

    fn public_key(&self, caller: Caller, data: &[u8]) -> Answer {
        let object = self.visible(caller, kind::ASYMMETRIC_KEY, u16::from_be_bytes(exactly(data)?))?;
        let point = object.secret.public_point().ok_or(error::INVALID_DATA)?;
        Ok([&[object.algorithm], point].concat())
    }

    fn sign_ecdsa(&mut self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::SIGN_ECDSA)?;
        let (&id, digest) = data.split_first_chunk().ok_or(error::WRONG_LENGTH)?;
        let key = self.visible(caller, kind::ASYMMETRIC_KEY, u16::from_be_bytes(id))?;
        if key.capabilities & capability::SIGN_ECDSA == 0 {
            return Err(error::INSUFFICIENT_PERMISSIONS);
        }
        let signature = key.secret.sign(digest)?;
        // A real device can do nothing else meanwhile; neither can this one.
        std::thread::sleep(self.settings.sign_latency);
        self.count_signature();
        Ok(signature)
    }

    fn delete(&mut self, caller: Caller, data: &[u8]) -> Answer {
        let [high, low, kind] = exactly(data)?;
        caller.needs(match kind {
            kind::OPAQUE => capability::DELETE_OPAQUE,
            kind::AUTHENTICATION_KEY => capability::DELETE_AUTHENTICATION_KEY,
            kind::ASYMMETRIC_KEY => capability::DELETE_ASYMMETRIC_KEY,
            _ => return Err(error::INVALID_DATA),
        })?;
        let id = u16::from_be_bytes([high, low]);
        self.visible(caller, kind, id)?;
        self.objects.remove(&(kind, id));
        Ok(Vec::new())
    }

    fn sign_attestation(&mut self, caller: Caller, data: &[u8]) -> Answer {
        caller.needs(capability::SIGN_ATTESTATION_CERTIFICATE)?;
        let [k, e, y, by] = exactly(data)?;
        if [y, by] != [0, 0] {
            return Err(error::OBJECT_NOT_FOUND);
        }
        let id = u16::from_be_bytes([k, e]);
        let key = self.visible(caller, kind::ASYMMETRIC_KEY, id)?;
        let point = key.secret.public_point().ok_or(error::INVALID_DATA)?.to_vec();
        let (label, how, version) = (key.label, self.attest, self.settings.version);
        self.attestation().certify(id, &point, &label, version, how).ok_or(error::INVALID_DATA)
    }

    fn visible(&self, caller: Caller, kind: u8, id: u16) -> Result<&Object, u8> {
        let object = self.objects.get(&(kind, id)).filter(|object| object.domains & caller.domains != 0);
        object.ok_or(error::OBJECT_NOT_FOUND)
    }
}

/// The authentication key of the session.
#[derive(Clone, Copy)]
struct Caller {
    domains: u16,
    capabilities: u64,
    delegated: u64,
}

impl Caller {
    fn needs(self, capability: u64) -> Result<(), u8> {
        if self.capabilities & capability == 0 { Err(error::INSUFFICIENT_PERMISSIONS) } else { Ok(()) }
    }
}

/// By which LIST OBJECTS selects.
enum Filter {
    Id(u16),
    Type(u8),
    Domains(u16),
    Capabilities(u64),
    Algorithm(u8),
    Label([u8; 40]),
}

impl Filter {
    fn read_all(mut data: &[u8]) -> Result<Vec<Self>, u8> {
        fn take<'a, const N: usize>(data: &mut &'a [u8]) -> Result<&'a [u8; N], u8> {
            let (taken, rest) = data.split_first_chunk().ok_or(error::WRONG_LENGTH)?;
            *data = rest;
            Ok(taken)
        }
        let mut filters = Vec::new();
        while let Some((&tag, rest)) = data.split_first() {
            data = rest;
            filters.push(match tag {
                1 => Self::Id(u16::from_be_bytes(*take(&mut data)?)),
                2 => Self::Type(take::<1>(&mut data)?[0]),
                3 => Self::Domains(u16::from_be_bytes(*take(&mut data)?)),
                4 => Self::Capabilities(u64::from_be_bytes(*take(&mut data)?)),
                5 => Self::Algorithm(take::<1>(&mut data)?[0]),
                6 => Self::Label(*take(&mut data)?),
                _ => return Err(error::INVALID_DATA),
            });
        }
        Ok(filters)
    }

    fn lets(&self, kind: u8, id: u16, object: &Object) -> bool {
        match self {
            Self::Id(wanted) => *wanted == id,
            Self::Type(wanted) => *wanted == kind,
            Self::Domains(wanted) => object.domains & wanted != 0,
            Self::Capabilities(wanted) => object.capabilities & wanted != 0,
            Self::Algorithm(wanted) => *wanted == object.algorithm,
            Self::Label(wanted) => *wanted == object.label,
        }
    }
}

fn exactly<const N: usize>(data: &[u8]) -> Result<[u8; N], u8> {
    data.try_into().map_err(|_| error::WRONG_LENGTH)
}

/// What is left of the largest message, by our own count; a device may have room for less.
const MOST_OPAQUE: usize = 3_061;
const GENERATED: u8 = 1;
const IMPORTED: u8 = 2;
const FORCE_AUDIT: u8 = 1;
const COMMAND_AUDIT: u8 = 3;

/// Records, free records, pages, free pages, bytes of a page.
const STORAGE: [u8; 10] = [1, 0, 0, 250, 4, 0, 3, 230, 0, 126];
