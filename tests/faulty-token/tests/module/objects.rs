//! Lies about keys, and many keys.

use std::time::Instant;

use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use faulty_token::{Condition, KeyClass, Says, attribute};

use crate::support::{as_application, is_good, key, point, private, sign_with};

#[test]
fn the_attributes_of_a_key_are_lied_about_one_by_one() {
    as_application!(|application| {
        let session = application.logged_in();
        let key = private(&session);
        let curve = vec![0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        let cases = [
            (attribute::CKA_EXTRACTABLE, Says::Bool(true), Attribute::Extractable(true)),
            (attribute::CKA_SENSITIVE, Says::Bool(false), Attribute::Sensitive(false)),
            (attribute::CKA_ALWAYS_SENSITIVE, Says::Bool(false), Attribute::AlwaysSensitive(false)),
            (attribute::CKA_NEVER_EXTRACTABLE, Says::Bool(false), Attribute::NeverExtractable(false)),
            (attribute::CKA_LOCAL, Says::Bool(false), Attribute::Local(false)),
            (attribute::CKA_PRIVATE, Says::Bool(false), Attribute::Private(false)),
            (attribute::CKA_EC_PARAMS, Says::Bytes(curve.clone()), Attribute::EcParams(curve)),
        ];
        let kinds: Vec<AttributeType> = cases.iter().map(|(_, _, lie)| lie.attribute_type()).collect();
        let truth = session.get_attributes(key, &kinds).unwrap();
        for (number, (attribute, says, lie)) in cases.into_iter().enumerate() {
            assert_ne!(truth[number], lie);
            application.control.impose(Condition::Lie { attribute, says, class: None, label: None }).unwrap();
            let mut expected = truth.clone();
            expected[number] = lie;
            assert_eq!(session.get_attributes(key, &kinds).unwrap(), expected);
            application.control.clear().unwrap();
            assert_eq!(session.get_attributes(key, &kinds).unwrap(), truth);
        }
    });
}

#[test]
fn an_attribute_may_be_missing_or_sensitive() {
    as_application!(|application| {
        let session = application.logged_in();
        let key = private(&session);
        let kinds = [AttributeType::Label, AttributeType::AlwaysSensitive];
        for says in [Says::Missing, Says::Sensitive] {
            let attribute = attribute::CKA_ALWAYS_SENSITIVE;
            application.control.impose(Condition::Lie { attribute, says, class: None, label: None }).unwrap();
            assert_eq!(session.get_attributes(key, &kinds).unwrap(), [Attribute::Label("signing".into())]);
            application.control.clear().unwrap();
            assert_eq!(session.get_attributes(key, &kinds).unwrap().len(), 2);
        }
    });
}

#[test]
fn a_lie_is_about_the_keys_it_names() {
    as_application!(|application| {
        let session = application.logged_in();
        let lie = Condition::Lie {
            attribute: attribute::CKA_LOCAL,
            says: Says::Bool(false),
            class: Some(KeyClass::Private),
            label: Some("signing".into()),
        };
        application.control.impose(lie).unwrap();
        let local =
            |class, label| session.get_attributes(key(&session, class, label), &[AttributeType::Local]).unwrap();
        assert_eq!(local(ObjectClass::PRIVATE_KEY, "signing"), [Attribute::Local(false)]);
        assert_eq!(local(ObjectClass::PUBLIC_KEY, "signing"), [Attribute::Local(true)]);
        assert_eq!(local(ObjectClass::PRIVATE_KEY, "other"), [Attribute::Local(true)]);
    });
}

#[test]
fn a_public_key_shows_the_point_of_another() {
    as_application!(|application| {
        let session = application.logged_in();
        let of = |label| point(&session, key(&session, ObjectClass::PUBLIC_KEY, label));
        let (own, other) = (of("signing"), of("other"));
        let lie = Condition::Lie {
            attribute: attribute::CKA_EC_POINT,
            says: Says::OfAnotherKey,
            class: None,
            label: Some("signing".into()),
        };
        application.control.impose(lie).unwrap();
        assert_eq!((of("signing"), of("other")), (other.clone(), other));
        application.control.clear().unwrap();
        assert_eq!(of("signing"), own);
    });
}

#[test]
fn ten_thousand_keys_are_found_read_and_sign_and_are_gone_when_cleared() {
    as_application!(|application| {
        let session = application.logged_in();
        let own = point(&session, key(&session, ObjectClass::PUBLIC_KEY, "signing"));
        application.control.impose(Condition::VirtualKeys { count: 10_000, like: "signing".into() }).unwrap();
        let before = Instant::now();
        let all = session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap();
        assert_eq!(all.len(), 10_002, "in {:?}", before.elapsed());

        let one = key(&session, ObjectClass::PRIVATE_KEY, "virtual-07321");
        let kinds = [AttributeType::Label, AttributeType::Id, AttributeType::Sensitive];
        let read = session.get_attributes(one, &kinds).unwrap();
        let Attribute::Id(id) = &read[1] else { panic!("{read:?}") };
        assert_eq!(read[0], Attribute::Label("virtual-07321".into()));
        assert_eq!(read[2], Attribute::Sensitive(true));
        let by_id = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(id.clone()), Attribute::Sign(true)];
        assert_eq!(session.find_objects(&by_id).unwrap(), [one]);
        let impossible = [Attribute::Label("virtual-07321".into()), Attribute::Sign(false)];
        assert_eq!(session.find_objects(&impossible).unwrap(), []);
        assert_eq!(point(&session, key(&session, ObjectClass::PUBLIC_KEY, "virtual-09999")), own);
        assert!(is_good(&session, b"hello", &sign_with(&session, one, b"hello").unwrap()));

        application.control.clear().unwrap();
        assert_eq!(session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap().len(), 2);
        assert!(sign_with(&session, one, b"hello").is_err());
    });
}
