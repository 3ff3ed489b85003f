//! SCP03 with AES-128 in the device's message format: the device's half.

use aes::Aes128;
use aes::cipher::block_padding::Iso7816;
use aes::cipher::{BlockDecryptMut as _, BlockEncrypt as _, BlockEncryptMut as _, InnerIvInit as _, KeyInit as _};
use cmac::{Cmac, Mac as _};

/// Keys and counters of one session.
pub(crate) struct Channel {
    encryption: [u8; 16],
    mac: [u8; 16],
    response_mac: [u8; 16],
    context: [u8; 16],
    chain: [u8; 16],
    counter: u32,
}

impl Channel {
    /// `key` is the authentication key: encryption half, MAC half.
    pub(crate) fn new(key: &[u8; 32], host: [u8; 8], card: [u8; 8]) -> Self {
        let mut context = [0; 16];
        context[..8].copy_from_slice(&host);
        context[8..].copy_from_slice(&card);
        let session = |half: &[u8], constant| derived(half, constant, &context, 128);
        Self {
            encryption: session(&key[..16], 0x04),
            mac: session(&key[16..], 0x06),
            response_mac: session(&key[16..], 0x07),
            context,
            chain: [0; 16],
            counter: 0,
        }
    }

    /// By which the device proves that it knows the key.
    pub(crate) fn card_cryptogram(&self) -> [u8; 8] {
        first_half(derived(&self.mac, 0x00, &self.context, 64))
    }

    /// `data` is the host's cryptogram.
    pub(crate) fn authenticate(&mut self, id: u8, data: &[u8], tag: &[u8]) -> bool {
        let expected = first_half(derived(&self.mac, 0x01, &self.context, 64));
        let proven = data == expected && self.verified(0x04, id, data, tag);
        self.counter = 1;
        proven
    }

    /// The command within a session message; `None` when the MAC or the padding is wrong.
    pub(crate) fn decrypt(&mut self, id: u8, data: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
        if !self.verified(0x05, id, data, tag) {
            return None;
        }
        let cipher = Aes128::new(&self.encryption.into());
        let decryptor = cbc::Decryptor::<Aes128>::inner_iv_init(cipher, &self.iv().into());
        decryptor.decrypt_padded_vec_mut::<Iso7816>(data).ok()
    }

    /// The whole session message that answers the command decrypted last.
    pub(crate) fn encrypt(&mut self, id: u8, answer: &[u8]) -> Vec<u8> {
        let cipher = Aes128::new(&self.encryption.into());
        let encryptor = cbc::Encryptor::<Aes128>::inner_iv_init(cipher, &self.iv().into());
        let data = encryptor.encrypt_padded_vec_mut::<Iso7816>(answer);
        let tag = tag(&self.response_mac, &self.chain, 0x85, id, &data);
        self.counter += 1;
        crate::device::message(0x85, &[&[id], &data[..], &tag[..8]].concat())
    }

    fn verified(&mut self, code: u8, id: u8, data: &[u8], presented: &[u8]) -> bool {
        let expected = tag(&self.mac, &self.chain, code, id, data);
        self.chain = expected;
        expected[..8] == *presented
    }

    fn iv(&self) -> [u8; 16] {
        let mut block = [0; 16];
        block[12..].copy_from_slice(&self.counter.to_be_bytes());
        let mut block = block.into();
        Aes128::new(&self.encryption.into()).encrypt_block(&mut block);
        block.into()
    }
}

fn tag(key: &[u8; 16], chain: &[u8; 16], code: u8, id: u8, data: &[u8]) -> [u8; 16] {
    let length = u16::try_from(1 + data.len() + 8).unwrap_or(u16::MAX).to_be_bytes();
    cmac(key, &[chain, &[code], &length, &[id], data])
}

/// SP 800-108 with the label of SCP03: eleven zeros and the constant.
fn derived(key: &[u8], constant: u8, context: &[u8; 16], bits: u16) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&key[..16]);
    cmac(&half, &[&[0; 11], &[constant, 0], &bits.to_be_bytes(), &[1], context])
}

fn cmac(key: &[u8; 16], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = <Cmac<Aes128> as aes::cipher::KeyInit>::new(&(*key).into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn first_half(block: [u8; 16]) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&block[..8]);
    half
}
