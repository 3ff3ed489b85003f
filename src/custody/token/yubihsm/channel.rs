//! The secure channel of a YubiHSM session: GlobalPlatform SCP03 (GPC_SPE_014) with AES-128, in the message format of
//! the device. The host's half.
//!
//! Three session keys come out of the authentication key and two challenges. Every command is encrypted (CBC, the IV
//! is the encrypted message counter) and carries a CMAC that is chained to the one before; the answer to it carries
//! one by another key over the same chain. So an answer cannot be replayed, reordered or taken from another session.

#![forbid(unsafe_code)]

use aes::Aes128;
use aes::cipher::block_padding::Iso7816;
use aes::cipher::{BlockDecryptMut as _, BlockEncrypt as _, BlockEncryptMut as _, InnerIvInit as _, KeyInit as _};
use cmac::{Cmac, Mac as _};
use subtle::ConstantTimeEq as _;
use yubihsm::authentication;
use zeroize::Zeroizing;

use super::frame::{self, BadAnswer, Command, RESPONSE};

/// One side's random contribution.
pub(super) type Challenge = [u8; 8];

type SessionKey = Zeroizing<[u8; 16]>;

/// The keys and counters of one session.
pub(super) struct Channel {
    id: u8,
    counter: u32,
    encryption: SessionKey,
    mac: SessionKey,
    response_mac: SessionKey,
    chain: [u8; 16],
    host_cryptogram: [u8; 8],
}

/// Why an answer over the channel is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelError {
    /// The answer outside the channel is none.
    Answer(BadAnswer),
    /// Its MAC or padding is wrong, or it belongs to another session: somebody meddles, or both sides lost step.
    Forged,
}

impl Channel {
    /// The channel of session `id`, and whether the device proved that it knows the authentication key.
    pub(super) fn derive(
        key: &authentication::Key,
        id: u8,
        host: Challenge,
        card: Challenge,
        card_cryptogram: [u8; 8],
    ) -> (Self, bool) {
        let (encryption, mac) = key.as_secret_slice().split_at(16);
        let mut context = [0; 16];
        context[..8].copy_from_slice(&host);
        context[8..].copy_from_slice(&card);
        let session = |parent: &[u8], constant| {
            let mut key = Zeroizing::new([0; 16]);
            derive(parent, constant, &context, &mut *key);
            key
        };
        let (encryption, response_mac, mac) = (session(encryption, 4), session(mac, 7), session(mac, 6));
        let mut expected = [0; 8];
        let mut host_cryptogram = [0; 8];
        derive(&*mac, 0, &context, &mut expected);
        derive(&*mac, 1, &context, &mut host_cryptogram);
        let proven = expected.ct_eq(&card_cryptogram).into();
        (Self { id, counter: 0, encryption, mac, response_mac, chain: [0; 16], host_cryptogram }, proven)
    }

    /// The message by which the host proves that it knows the authentication key. Sent once, before any command.
    pub(super) fn authenticate(&mut self) -> Vec<u8> {
        // Counted from 1 after the authentication: GPC_SPE_014, section 6.2.6.
        self.counter = 1;
        let cryptogram = self.host_cryptogram;
        self.sealed(Command::AuthenticateSession, &cryptogram)
    }

    /// A command, encrypted.
    pub(super) fn encrypt(&mut self, command: Command, parts: &[&[u8]]) -> Vec<u8> {
        let mut padded = frame::encode(command, parts);
        let length = padded.len();
        padded.resize(length + 16, 0);
        let encryptor = cbc::Encryptor::inner_iv_init(self.cipher(), &self.iv().into());
        // Room for a whole block of padding was made above, so this cannot fail; an empty message would be refused.
        let encrypted = encryptor.encrypt_padded_mut::<Iso7816>(&mut padded, length).unwrap_or_default().to_vec();
        self.sealed(Command::SessionMessage, &encrypted)
    }

    /// The decrypted answer to the last command: a message of its own, to be read by [`frame::decode`].
    pub(super) fn decrypt(&mut self, answer: &[u8]) -> Result<Zeroizing<Vec<u8>>, ChannelError> {
        let body = frame::decode(Command::SessionMessage, answer).map_err(ChannelError::Answer)?;
        let Some((sealed, tag)) = body.split_last_chunk::<8>() else { return Err(ChannelError::Forged) };
        let Some((&id, encrypted)) = sealed.split_first() else { return Err(ChannelError::Forged) };
        let length = u16::try_from(body.len()).map_err(|_| ChannelError::Forged)?;
        let expected =
            tag_of(&self.response_mac, &self.chain, Command::SessionMessage as u8 | RESPONSE, length, id, encrypted);
        if id != self.id || !bool::from(expected[..8].ct_eq(tag)) {
            return Err(ChannelError::Forged);
        }
        let mut plain = Zeroizing::new(encrypted.to_vec());
        let decryptor = cbc::Decryptor::inner_iv_init(self.cipher(), &self.iv().into());
        let length = decryptor.decrypt_padded_mut::<Iso7816>(&mut plain).map_err(|_| ChannelError::Forged)?.len();
        plain.truncate(length);
        self.counter += 1;
        Ok(plain)
    }

    /// Goes on as if the device had answered the last command, whose answer was lost.
    pub(super) fn skip_answer(&mut self) {
        self.counter += 1;
    }

    /// Are there no counters left? A million messages, as Yubico's own library has it.
    pub(super) fn spent(&self) -> bool {
        self.counter >= 0x10_0000
    }

    fn sealed(&mut self, code: Command, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(1 + data.len() + 8).unwrap_or(u16::MAX);
        self.chain = tag_of(&self.mac, &self.chain, code as u8, length, self.id, data);
        frame::encode(code, &[&[self.id], data, &self.chain[..8]])
    }

    fn cipher(&self) -> Aes128 {
        Aes128::new(&(*self.encryption).into())
    }

    fn iv(&self) -> [u8; 16] {
        let mut block = [0; 16];
        block[12..].copy_from_slice(&self.counter.to_be_bytes());
        let mut block = block.into();
        self.cipher().encrypt_block(&mut block);
        block.into()
    }
}

fn tag_of(key: &SessionKey, chain: &[u8; 16], code: u8, length: u16, id: u8, data: &[u8]) -> [u8; 16] {
    let mut mac = <Cmac<Aes128> as aes::cipher::KeyInit>::new(&(**key).into());
    mac.update(chain);
    mac.update(&[code]);
    mac.update(&length.to_be_bytes());
    mac.update(&[id]);
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// NIST SP 800-108 in counter mode with CMAC, one block: GPC_SPE_014, section 4.1.5.
fn derive(parent: &[u8], constant: u8, context: &[u8; 16], output: &mut [u8]) {
    let mut input = [0; 32];
    input[11] = constant;
    let bits = u16::try_from(output.len() * 8).unwrap_or(u16::MAX);
    input[13..15].copy_from_slice(&bits.to_be_bytes());
    input[15] = 1;
    input[16..].copy_from_slice(context);
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&parent[..16]);
    let mut mac = <Cmac<Aes128> as aes::cipher::KeyInit>::new(&(*key).into());
    mac.update(&input);
    let block: Zeroizing<[u8; 16]> = Zeroizing::new(mac.finalize().into_bytes().into());
    output.copy_from_slice(&block[..output.len()]);
}
