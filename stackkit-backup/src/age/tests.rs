use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    Identity::generate().unwrap()
}

/// Sizes at which chunks begin and end.
fn any_plain() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![
        Just(0_usize),
        1_usize..100,
        CHUNK_BYTES - 2..CHUNK_BYTES + 3,
        2 * CHUNK_BYTES - 2..2 * CHUNK_BYTES + 3,
        3 * CHUNK_BYTES..3 * CHUNK_BYTES + 1,
    ];
    (size, any::<u8>()).prop_map(|(size, first)| (0..=250_u8).cycle().map(|byte| byte ^ first).take(size).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn each_recipient_can_read_and_nobody_else(plain in any_plain(), recipients in 1_usize..4) {
        let identities: Vec<_> = (0..recipients).map(|_| identity()).collect();
        let to: Vec<_> = identities.iter().flat_map(Identity::recipients).collect();
        let file = encrypt(&to, &plain).unwrap();
        for identity in &identities {
            prop_assert!(decrypt(identity, &file).unwrap()[..] == plain[..]);
        }
        let refused = decrypt(&identity(), &file).err().unwrap();
        prop_assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
        let header_bytes = open_header(&file, &Unlock::Identity(&identities[0])).unwrap().header_bytes;
        prop_assert_eq!((file.len() - header_bytes) as u64, NONCE_BYTES as u64 + sealed_bytes(plain.len() as u64));
    }

    #[test]
    fn a_cut_or_prolonged_file_is_refused(plain in any_plain(), cut in any::<prop::sample::Index>()) {
        let identity = identity();
        let mut file = encrypt(&identity.recipients(), &plain).unwrap();
        let left = cut.index(file.len());
        prop_assert_eq!(decrypt(&identity, &file[..left]).err().unwrap().kind(), ErrorKind::Integrity);
        file.push(0);
        prop_assert_eq!(decrypt(&identity, &file).err().unwrap().kind(), ErrorKind::Integrity);
    }
}

#[test]
fn what_age_wrote_is_read() {
    let identity = Identity::parse(&Secret::new(include_str!("vectors/identity.txt"))).unwrap();
    let plain = decrypt(&identity, include_bytes!("vectors/small.age")).unwrap();
    assert_eq!(plain[..], *b"plain bytes of the vendor");
}

#[test]
fn every_flip_of_a_small_file_is_refused() {
    let identity = identity();
    let file = encrypt(&identity.recipients(), b"plain bytes").unwrap();
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(decrypt(&identity, &flipped).is_err(), "byte {at}");
    }
}

#[test]
fn chunks_that_changed_places_are_refused() {
    let identity = identity();
    let file = encrypt(&identity.recipients(), &[9; 3 * CHUNK_BYTES]).unwrap();
    let first = file.len() - 3 * SEALED_CHUNK_BYTES;
    let mut swapped = file.clone();
    swapped[first..first + 2 * SEALED_CHUNK_BYTES].rotate_left(SEALED_CHUNK_BYTES);
    assert_eq!(decrypt(&identity, &swapped).err().unwrap().kind(), ErrorKind::Integrity);
    let shorter = &file[..file.len() - SEALED_CHUNK_BYTES];
    assert_eq!(decrypt(&identity, shorter).err().unwrap().kind(), ErrorKind::Integrity);
}

#[test]
fn unknown_stanzas_are_ignored_and_low_order_points_refused() {
    let identity = identity();
    let recipients = identity.recipients();
    // A point of order one, as a recipient and as a share.
    let low = Recipient::from_bytes([0; 32]);
    assert_eq!(encrypt(&[low], b"x").err().unwrap().kind(), ErrorKind::Config);
    let share = base64::encode(&[0; 32]);
    let wrapped = base64::encode(&[0; 32]);
    let mac = base64::encode(&[0; 32]);
    let header = format!("age-encryption.org/v1\n-> X25519 {share}\n{wrapped}\n--- {mac}\n");
    let refused = decrypt(&identity, header.as_bytes()).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Integrity, "{refused}");
    let foreign = format!("age-encryption.org/v1\n-> piv-p256 abc def\nAAAA\n--- {mac}\n");
    let refused = decrypt(&identity, foreign.as_bytes()).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused}");
    assert!(encrypt(&recipients, b"x").is_ok());
    assert_eq!(encrypt(&[], b"x").err().unwrap().kind(), ErrorKind::Config);
}

#[test]
fn too_much_work_is_refused_before_it_is_done() {
    let salt = base64::encode(&[0; 16]);
    let mac = base64::encode(&[0; 32]);
    for (log_n, kind) in [("21", ErrorKind::Unsupported), ("0", ErrorKind::Integrity), ("018", ErrorKind::Integrity)] {
        let file = format!("age-encryption.org/v1\n-> scrypt {salt} {log_n}\n{mac}\n--- {mac}\n");
        let refused = decrypt_with_passphrase(&Secret::new("x"), file.as_bytes()).err().unwrap();
        assert_eq!(refused.kind(), kind, "{log_n}: {refused}");
    }
}
