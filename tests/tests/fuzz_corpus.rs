//! The fuzz targets on any toolchain: over the kept corpus, and over random bytes.

use std::fs;
use std::path::Path;

use common::Message;
use common::limits::FRAME_PREFIX_BYTES;
use proptest::prelude::*;
use tests::fuzzing::{TARGETS, Target, revokes_in};
use tests::random::Random;

#[test]
fn everything_in_the_kept_corpus_is_as_it_must_be() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let kept = fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("the corpus of {name}: {error}"));
        let mut count = 0;
        for file in kept {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let run = std::panic::catch_unwind(|| target(&bytes));
            assert!(run.is_ok(), "{name} fails on {}", path.display());
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

/// What the document shows is where a fuzzer begins: an example of a former format would be refused, and reach nothing.
#[test]
fn every_example_of_the_protocol_is_in_the_kept_corpus_as_it_is_now() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/message");
    let document = include_str!("../../PROTOCOL.md").replace("\n ", " ");
    let examples: Vec<_> = document.lines().filter_map(|line| line.strip_prefix("example ")?.split_once(": ")).collect();
    assert!(!examples.is_empty());
    for (name, hex) in examples {
        let bytes = hex.split_whitespace().filter(|word| *word != "|").map(|byte| u8::from_str_radix(byte, 16).unwrap());
        let frame: Vec<u8> = bytes.skip(FRAME_PREFIX_BYTES).collect();
        let kept = fs::read(corpus.join(name)).unwrap_or_else(|error| panic!("the example {name}: {error}"));
        assert_eq!(kept, frame, "{name} is not the document's example any more; write that to fuzz/corpus/message");
        Message::decode(frame.into()).unwrap_or_else(|error| panic!("the example {name}: {error}"));
    }
}

fn over_random_bytes(target: Target) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = prop::test_runner::TestRunner::new(config);
    // An even number ends a list: where there are few, stories are long.
    let mostly_odd = prop_oneof![7 => any::<u8>().prop_map(|byte| byte | 1), 1 => any::<u8>()];
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(any::<u8>(), 0..4000),
        prop::collection::vec(mostly_odd, 0..2000),
    ];
    runner
        .run(&bytes, |bytes| {
            target(&bytes);
            Ok(())
        })
        .unwrap();
}

/// What is rare takes a fuzzer long to come to, and is all the less tried from there.
#[test]
fn random_stories_of_a_queue_come_to_items_that_are_taken_back() {
    let mut random = Random::new(7);
    let story =
        |_| (0..1000).map(|_| if random.chance(90) { random.below(256) as u8 | 1 } else { random.below(256) as u8 }).collect::<Vec<_>>();
    let with = (0..500).map(story).filter(|bytes| revokes_in(bytes) > 0).count();
    assert!(with >= 50, "{with} of 500");
}

macro_rules! over_random_bytes {
    ($($name:ident: $test:ident,)*) => {$(
        #[test]
        fn $test() {
            over_random_bytes(tests::fuzzing::$name);
        }
    )*};
}

over_random_bytes! {
    frame: any_stream_is_cut_into_the_same_frames_however_it_comes,
    message: any_frame_is_refused_or_is_a_message_that_encodes_to_itself,
    batch: any_body_is_refused_or_keeps_its_items_however_it_is_cut,
    queue: whatever_happens_to_a_queue_it_keeps_its_promises,
    input: any_input_is_cut_into_its_items_up_to_the_first_that_is_none,
    options: any_value_of_a_flag_is_refused_or_makes_a_queue,
}
