//! Grants: what they hand over, what each is bound to, and the pinned one.

use ehrfast_core::envelope::{ClassId, ClassKey, ClassPublicKey};
use ehrfast_core::grant::{Grant, GrantContext, GrantError, GrantKey, Suite, grant, open_grant};
use proptest::prelude::*;

use crate::pinned::pinned;

const ORIGIN: &str = "main-00000000000000000000000000000000";
const CONTEXT: GrantContext<'_> = GrantContext { origin: ORIGIN, recipient: [7; 16] };

fn id() -> ClassId {
    ClassId { subject: [1; 16], custodian: [2; 16], class: "clinical".to_owned(), epoch: [3; 16] }
}

fn class_key() -> ClassKey {
    ClassKey::derive(&[9; 32], id()).unwrap()
}

fn posted(id: ClassId) -> ClassPublicKey {
    ClassPublicKey::new(id, class_key().public_key()).unwrap()
}

fn built_in() -> Vec<Suite> {
    ["x25519", "xwing"].into_iter().filter_map(|name| Suite::from_name(name).ok()).collect()
}

fn refused(data: &[u8], key: &GrantKey, posted: &ClassPublicKey, context: &GrantContext<'_>) -> GrantError {
    open_grant(data, key, posted, context).unwrap_err()
}

#[test]
fn a_grant_hands_over_the_class_key() {
    assert_eq!(built_in().len(), 1 + usize::from(cfg!(feature = "xwing")));
    for suite in built_in() {
        let key = GrantKey::generate(suite).unwrap();
        let sealed = grant(&class_key(), suite, key.public_key(), &CONTEXT).unwrap();
        let opened = open_grant(&sealed, &key, &posted(id()), &CONTEXT).unwrap();
        assert_eq!((opened.id(), opened.public_key()), (&id(), class_key().public_key()));
        let again = GrantKey::from_seed(suite, key.seed()).unwrap();
        assert!(open_grant(&sealed, &again, &posted(id()), &CONTEXT).is_ok());
        let read = Grant::decode(&sealed).unwrap();
        assert_eq!((read.suite, read.id), (suite, id()));
        // Fresh randomness each time.
        assert_ne!(grant(&class_key(), suite, key.public_key(), &CONTEXT).unwrap(), sealed);
    }
}

#[test]
fn a_grant_is_bound_to_all_it_is_about() {
    for suite in built_in() {
        let key = GrantKey::generate(suite).unwrap();
        let sealed = grant(&class_key(), suite, key.public_key(), &CONTEXT).unwrap();
        let about = |id: ClassId| refused(&sealed, &key, &posted(id), &CONTEXT);
        assert_eq!(about(ClassId { subject: [0; 16], ..id() }), GrantError::OtherSubject);
        assert_eq!(about(ClassId { custodian: [0; 16], ..id() }), GrantError::OtherCustodian);
        assert_eq!(about(ClassId { class: "audit".to_owned(), ..id() }), GrantError::OtherClass);
        assert_eq!(about(ClassId { epoch: [0; 16], ..id() }), GrantError::OtherEpoch);
        let stranger = GrantKey::generate(suite).unwrap();
        assert_eq!(refused(&sealed, &stranger, &posted(id()), &CONTEXT), GrantError::CannotOpen);
        let elsewhere = GrantContext { origin: "main-00000000000000000000000000000001", ..CONTEXT };
        assert_eq!(refused(&sealed, &key, &posted(id()), &elsewhere), GrantError::CannotOpen);
        let another = GrantContext { recipient: [8; 16], ..CONTEXT };
        assert_eq!(refused(&sealed, &key, &posted(id()), &another), GrantError::CannotOpen);
        let nowhere = GrantContext { origin: "", ..CONTEXT };
        assert_eq!(refused(&sealed, &key, &posted(id()), &nowhere), GrantError::Origin);
        // A custodian that hands over another seed under the right name.
        let wrong = ClassKey::from_seed(&[4; 32], id()).unwrap();
        let sealed = grant(&wrong, suite, key.public_key(), &CONTEXT).unwrap();
        assert_eq!(refused(&sealed, &key, &posted(id()), &CONTEXT), GrantError::OtherSeed);
    }
}

#[test]
fn changed_and_cut_grants_are_refused() {
    for suite in built_in() {
        let key = GrantKey::generate(suite).unwrap();
        let sealed = grant(&class_key(), suite, key.public_key(), &CONTEXT).unwrap();
        for end in 0..sealed.len() {
            assert!(matches!(refused(&sealed[..end], &key, &posted(id()), &CONTEXT), GrantError::Malformed(_)));
        }
        let longer = [&sealed[..], &[0]].concat();
        assert!(matches!(refused(&longer, &key, &posted(id()), &CONTEXT), GrantError::Malformed(_)));
        let step = sealed.len().div_ceil(300);
        for bit in (0..8 * sealed.len()).step_by(step) {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_grant(&flipped, &key, &posted(id()), &CONTEXT).is_err(), "bit {bit}");
        }
        let mut last = sealed.clone();
        *last.last_mut().unwrap() ^= 1;
        assert_eq!(refused(&last, &key, &posted(id()), &CONTEXT), GrantError::CannotOpen);
    }
}

#[test]
fn keys_and_suites_are_told_apart() {
    for bad in [&[0; 32][..], &[1; 31], &[]] {
        assert_eq!(grant(&class_key(), Suite::X25519, bad, &CONTEXT), Err(GrantError::PublicKey), "{bad:?}");
    }
    assert_eq!(Suite::from_name("p256"), Err(GrantError::Suite));
    let key = GrantKey::generate(Suite::X25519).unwrap();
    let sealed = grant(&class_key(), Suite::X25519, key.public_key(), &CONTEXT).unwrap();
    let unknown: Vec<u8> = {
        let at = sealed.windows(5).position(|window| window == [0x3a, 0, 1, 0, 1]).unwrap();
        let mut changed = sealed.clone();
        changed[at + 4] = 9;
        changed
    };
    assert_eq!(Grant::decode(&unknown), Err(GrantError::Suite));
    if cfg!(not(feature = "xwing")) {
        assert_eq!(GrantKey::generate(Suite::XWing).unwrap_err(), GrantError::Suite);
        assert_eq!(grant(&class_key(), Suite::XWing, &[0; 1216], &CONTEXT), Err(GrantError::Suite));
    }
    assert!(!format!("{key:?}").contains(&format!("{:?}", key.seed())));
}

/// Made by tests/reference/envelope.py with a fixed ephemeral key.
#[test]
fn the_pinned_grant_opens() {
    let sealed = hex::decode(pinned("grant", "example")).unwrap();
    let key = GrantKey::from_seed(Suite::X25519, &[5; 32]).unwrap();
    let opened = open_grant(&sealed, &key, &posted(id()), &CONTEXT).unwrap();
    assert_eq!(opened.public_key(), class_key().public_key());
}

/// Made by tests/reference/grant.py with the ML-KEM of another library.
#[test]
fn the_pinned_x_wing_grant_opens_where_it_is_built_in() {
    let sealed = hex::decode(pinned("grant", "xwing")).unwrap();
    assert_eq!(Grant::decode(&sealed).unwrap().suite, Suite::XWing);
    match GrantKey::from_seed(Suite::XWing, &[5; 32]) {
        Ok(key) => {
            let opened = open_grant(&sealed, &key, &posted(id()), &CONTEXT).unwrap();
            assert_eq!(opened.public_key(), class_key().public_key());
        }
        Err(error) => assert_eq!((error, cfg!(feature = "xwing")), (GrantError::Suite, false)),
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(data: Vec<u8>) {
        prop_assert!(Grant::decode(&data).is_err());
    }
}
