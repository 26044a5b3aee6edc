//! Frames and messages: what is sent is received, and what noise makes of it is told and harms nothing behind it.
#![cfg(feature = "serial")]

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use siskin_device::serial::{
    EndReason, Event, FrameError, Generate, MessageTooLong, Receiver, Request, STOPS_MAX, Settings, send,
};
use siskin_runtime::Sampling;

fn sampling() -> Sampling {
    let sampling = Sampling::random(0.75).and_then(|sampling| sampling.with_top_k(40)).expect("in range");
    sampling.with_mirostat(5.0, 0.125).and_then(|sampling| sampling.with_presence_penalty(-0.5)).expect("in range")
}

fn request(prompt: &str) -> Request<'_> {
    let mut stops = [""; STOPS_MAX];
    stops[0] = "\n\n";
    let settings = Settings::from(&sampling());
    let (max_new_tokens, seed) = (300, 0x1122_3344_5566_7788);
    Request::Generate(Generate { prompt, continues: true, max_new_tokens, settings, seed, adapter: None, stops })
}

fn frame(message: &impl serde::Serialize) -> Vec<u8> {
    let mut frame = Vec::new();
    send(message, &mut [0; 2048], |byte| frame.push(byte)).expect("it fits");
    frame
}

/// The first message of `bytes`, and how many bytes it took.
fn receive<'m, M: serde::Deserialize<'m>>(
    receiver: &'m mut Receiver<'_>,
    bytes: &[u8],
) -> Option<(Result<M, FrameError>, usize)> {
    let end = bytes.iter().position(|&byte| receiver.push(byte))?;
    Some((receiver.message(), end + 1))
}

#[test]
fn messages_come_as_they_were_sent() {
    let mut buffer = [0; 2048];
    let mut receiver = Receiver::new(&mut buffer);
    // Runs of every length around where a COBS length is full; zeros lie in the numbers.
    for n_bytes in [0, 1, 200, 250, 253, 254, 255, 256, 508, 509, 600] {
        let prompt = "é".repeat(n_bytes / 2) + &"x".repeat(n_bytes % 2);
        let bytes = frame(&request(&prompt));
        assert_eq!(bytes.iter().filter(|&&byte| byte == 0).count(), 1);
        assert_eq!(receive(&mut receiver, &bytes), Some((Ok(request(&prompt)), bytes.len())));
    }
    let events = [
        Event::Hello { board: "b", model_bytes: 1 << 20, model_crc: u32::MAX, context_len: 256, frame_bytes_max: 0 },
        Event::Token(0),
        Event::Text(" the"),
        Event::End { reason: EndReason::ContextFull, n_tokens: 3, logits_hash: 0x844b_a083_989b_9ac9 },
        Event::Error("no"),
    ];
    for event in events {
        let bytes = [&[0, 0][..], &frame(&event)].concat();
        assert_eq!(receive(&mut receiver, &bytes), Some((Ok(event), bytes.len())));
    }
    let Request::Generate(sent) = request("") else { unreachable!() };
    assert_eq!(sent.settings.sampling(), Ok(sampling()));
    assert_eq!(send(&request("long"), &mut [0; 16], |_| panic!("nothing is sent")), Err(MessageTooLong));
}

#[test]
fn the_bytes_are_those_of_the_protocols_first_version() {
    // Computed elsewhere: version 1, variant 0, and zlib.crc32(b"\x01\x00"), little-endian, in COBS.
    assert_eq!(frame(&Request::Hello), [2, 1, 5, 0xbe, 0x23, 0xc2, 0x58, 0]);
}

#[test]
fn every_changed_byte_is_noticed() {
    let good = frame(&request("ROMEO:"));
    let mut buffer = [0; 256];
    let mut receiver = Receiver::new(&mut buffer);
    for at in 0..good.len() {
        for change in 1..=255 {
            let mut bad = good.clone();
            bad[at] ^= change;
            // A new zero ends a frame early, and what is left is one more; a lost end runs into the next frame.
            let stream = [&bad[..], &good, &good].concat();
            let (mut rest, mut n_good) = (&stream[..], 0);
            while let Some((message, n_taken)) = receive::<Request<'_>>(&mut receiver, rest) {
                n_good += usize::from(message.is_ok());
                assert!(message.is_err() || message == Ok(request("ROMEO:")));
                rest = &rest[n_taken..];
            }
            let n_expected = if at == good.len() - 1 { 1 } else { 2 };
            assert_eq!(n_good, n_expected, "byte {at} changed by {change}");
        }
    }
}

#[test]
fn random_bytes_are_refused_and_the_next_frame_is_served() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut buffer = [0; 64];
    let mut receiver = Receiver::new(&mut buffer);
    let hello = frame(&Request::Hello);
    let mut n_refused = 0;
    for _ in 0..20_000 {
        let mut noise = vec![0; rng.random_range(0..300)];
        rng.fill_bytes(&mut noise);
        let stream = [&noise[..], &[0], &hello].concat();
        let mut rest = &stream[..];
        while let Some((message, n_taken)) = receive::<Request<'_>>(&mut receiver, rest) {
            rest = &rest[n_taken..];
            match message {
                Ok(message) => assert_eq!((message, rest.len()), (Request::Hello, 0)),
                Err(error) => {
                    n_refused += 1;
                    assert!(!rest.is_empty(), "the good frame was refused: {error}");
                }
            }
        }
    }
    assert!(n_refused > 20_000, "{n_refused}");
}

#[test]
fn frames_that_are_no_messages_are_told_apart() {
    let mut buffer = [0; 32];
    let mut receiver = Receiver::new(&mut buffer);
    let mut refusal =
        |bytes: &[u8]| receive::<Request<'_>>(&mut receiver, bytes).and_then(|(message, _)| message.err());
    let long = frame(&request(&"long ".repeat(9)));
    assert_eq!(refusal(&long), Some(FrameError::TooLong { bytes_max: 32 }));
    // A variant that there is none of, and a message with something behind it.
    assert_eq!(refusal(&frame(&9_u8)), Some(FrameError::Unknown));
    assert_eq!(refusal(&frame(&(0_u8, 1_u8))), Some(FrameError::Unknown));
    // Version 2 and its checksum, zlib.crc32(b"\x02\x01"): no zero in it.
    let other = [7, 2, 1, 0xeb, 0x40, 0xe8, 0x04, 0];
    let found = refusal(&other);
    assert!(matches!(found, Some(FrameError::Version { found: 2 })), "{found:?}");
    assert_eq!(refusal(&[1, 0]), Some(FrameError::Damaged));
    assert_eq!(refusal(&[9, 1, 0]), Some(FrameError::Damaged));
}
