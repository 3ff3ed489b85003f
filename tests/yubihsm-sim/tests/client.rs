//! The simulator as a client that is not ours sees it: the crate `yubihsm` over HTTP.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use yubihsm::connector::HttpConfig;
use yubihsm::{AuditOption, Capability, Client, Connector, Credentials, Domain, asymmetric, command, object};
use yubihsm_sim::control::Attest;
use yubihsm_sim::device::error;
use yubihsm_sim::{Control, Settings, Simulator};

fn start(settings: Settings) -> (Simulator, Client) {
    let simulator = Simulator::start(settings).unwrap();
    let client = open(&simulator, b"password").unwrap();
    (simulator, client)
}

fn open(simulator: &Simulator, password: &[u8]) -> Result<Client, yubihsm::client::Error> {
    let addr = simulator.addr();
    let config = HttpConfig { addr: addr.ip().to_string(), port: addr.port(), timeout_ms: 5_000 };
    Client::open(Connector::http(&config), Credentials::from_password(1, password), true)
}

fn generate(client: &Client, id: u16) {
    let label = object::Label::from_bytes(b"acme").unwrap();
    let p256 = asymmetric::Algorithm::EcP256;
    client.generate_asymmetric_key(id, label, Domain::DOM1, Capability::SIGN_ECDSA, p256).unwrap();
}

#[test]
fn a_key_is_generated_listed_described_and_signs() {
    let (simulator, client) = start(Settings::default());
    generate(&client, 7);
    let listed = client.list_objects(&[object::Filter::Type(object::Type::AsymmetricKey)]).unwrap();
    assert_eq!(listed.iter().map(|entry| entry.object_id).collect::<Vec<_>>(), [7]);
    let info = client.get_object_info(7, object::Type::AsymmetricKey).unwrap();
    assert_eq!((info.origin, info.domains), (object::Origin::Generated, Domain::DOM1));
    assert_eq!((info.label.to_string().as_str(), info.capabilities), ("acme", Capability::SIGN_ECDSA));
    let message = b"what is signed";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message);
    let signature = client.sign_ecdsa_prehash_raw(7, digest.as_ref()).unwrap();
    let public = client.get_public_key(7).unwrap();
    let point = [&[4], public.as_slice()].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, &signature).unwrap();
    assert_eq!(simulator.with(|device| device.signatures()), 1);
    client.delete_object(7, object::Type::AsymmetricKey).unwrap();
    assert!(client.get_public_key(7).is_err());
}

#[test]
fn the_device_describes_itself_and_echoes() {
    let (simulator, client) = start(Settings { serial: 1_234_567, ..Settings::default() });
    let info = client.device_info().unwrap();
    assert_eq!((info.serial_number.to_string().as_str(), info.log_store_capacity), ("0001234567", 62));
    assert_eq!((info.major_version, info.minor_version, info.build_version), (2, 4, 0));
    assert_eq!(client.echo(b"hello".as_slice()).unwrap(), b"hello");
    assert!(client.get_storage_info().unwrap().free_records > 0);
    client.blink_device(1).unwrap();
    assert!(simulator.url().starts_with("http://127.0.0.1:"));
}

#[test]
fn a_wrong_password_opens_nothing_and_leaves_no_session_behind() {
    let (simulator, client) = start(Settings::default());
    drop(client);
    let before = simulator.with(yubihsm_sim::Device::open_sessions);
    // The crate gives up between the two halves of the handshake, so one session is left half open.
    assert!(open(&simulator, b"wrong").is_err());
    assert!(simulator.with(yubihsm_sim::Device::open_sessions) <= before + 1);
}

#[test]
fn the_seventeenth_session_is_refused_and_an_idle_one_expires() {
    let (simulator, _first) = start(Settings { session_expiry: Duration::from_millis(400), ..Settings::default() });
    simulator.control(Control::OccupySessions { count: 15 });
    assert!(open(&simulator, b"password").is_err());
    std::thread::sleep(Duration::from_millis(450));
    assert_eq!(simulator.with(yubihsm_sim::Device::open_sessions), 0);
    open(&simulator, b"password").unwrap();
}

#[test]
fn the_log_is_chained_and_stops_a_device_that_must_not_lose_it() {
    let (simulator, client) = start(Settings::default());
    generate(&client, 7);
    client.set_command_audit_option(command::Code::SignEcdsa, AuditOption::On).unwrap();
    client.set_force_audit_option(AuditOption::On).unwrap();
    assert_eq!(client.get_force_audit_option().unwrap(), AuditOption::On);
    client.sign_ecdsa_prehash_raw(7, [1; 32]).unwrap();
    let log = client.get_log_entries().unwrap();
    let last = log.entries.last().unwrap();
    assert_eq!((last.cmd, last.target_key, last.session_key), (command::Code::SignEcdsa, 7, 1));
    simulator.control(Control::FillLog);
    assert!(client.sign_ecdsa_prehash_raw(7, [1; 32]).is_err());
    let log = client.get_log_entries().unwrap();
    assert_eq!(log.entries.len(), 62);
    client.set_log_index(log.entries.last().unwrap().item).unwrap();
    client.sign_ecdsa_prehash_raw(7, [1; 32]).unwrap();
    assert_eq!(simulator.with(|device| device.log_used()), 1);
}

#[test]
fn what_is_imported_says_so_and_an_opaque_object_is_returned_as_it_was() {
    let (_simulator, client) = start(Settings::default());
    let label = || object::Label::from_bytes(b"x").unwrap();
    let p256 = asymmetric::Algorithm::EcP256;
    let (domain, capabilities) = (Domain::DOM1, Capability::SIGN_ECDSA);
    client.put_asymmetric_key(9, label(), domain, capabilities, p256, vec![5; 32]).unwrap();
    let info = client.get_object_info(9, object::Type::AsymmetricKey).unwrap();
    assert_eq!(info.origin, object::Origin::Imported);
    let algorithm = yubihsm::opaque::Algorithm::Data;
    client.put_opaque(3, label(), domain, Capability::empty(), algorithm, b"bytes".to_vec()).unwrap();
    assert_eq!(client.get_opaque(3).unwrap(), b"bytes");
}

#[test]
fn a_key_has_a_certificate_by_the_device() {
    let (simulator, client) = start(Settings::default());
    generate(&client, 7);
    let certificate = client.sign_attestation_certificate(7, None).unwrap();
    assert_eq!(certificate.as_slice()[0], 0x30);
    assert_eq!(client.get_opaque(0).unwrap()[0], 0x30);
    let roots = simulator.with(yubihsm_sim::Device::attestation_roots);
    assert_eq!(roots.matches("BEGIN CERTIFICATE").count(), 2);
    let good = client.get_opaque(0).unwrap();
    simulator.control(Control::Attest { how: Attest::OtherRoot });
    assert_ne!(client.get_opaque(0).unwrap(), good);
}

#[test]
fn it_fails_on_command_for_as_long_as_it_was_told() {
    let (simulator, client) = start(Settings::default());
    generate(&client, 7);
    simulator.control(Control::FailNext { command: Some(0x56), code: error::STORAGE_FAILED, count: 2 });
    client.echo(b"not this one".as_slice()).unwrap();
    assert!(client.sign_ecdsa_prehash_raw(7, [1; 32]).is_err());
    assert!(client.sign_ecdsa_prehash_raw(7, [1; 32]).is_err());
    client.sign_ecdsa_prehash_raw(7, [1; 32]).unwrap();
    simulator.control(Control::Unplug);
    assert!(client.sign_ecdsa_prehash_raw(7, [1; 32]).is_err());
    simulator.control(Control::Plug);
    client.sign_ecdsa_prehash_raw(7, [1; 32]).unwrap();
}

#[test]
fn orders_come_over_http_too_and_the_connector_tells_its_state() {
    let (simulator, client) = start(Settings::default());
    let exchange = |request: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(simulator.addr()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(exchange("GET /connector/status HTTP/1.1\r\n\r\n").contains("status=OK"));
    let order =
        |json: &str| exchange(&format!("POST /control HTTP/1.1\r\ncontent-length: {}\r\n\r\n{json}", json.len()));
    assert!(order(r#"{"do":"unplug"}"#).starts_with("HTTP/1.1 200"));
    assert!(exchange("GET /connector/status HTTP/1.1\r\n\r\n").contains("status=NO_DEVICE"));
    assert!(client.echo(b"x".as_slice()).is_err());
    assert!(order(r#"{"do":"explode"}"#).starts_with("HTTP/1.1 400"));
    assert!(exchange("GET /else HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
}
