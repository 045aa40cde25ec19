//! Each method of the library's clients has an example, which `cargo test --doc` runs.

const SOURCES: [(&str, &str); 6] = [
    ("producer.rs", include_str!("../../common/src/producer.rs")),
    ("consumer.rs", include_str!("../../common/src/consumer.rs")),
    ("consumer/delivery.rs", include_str!("../../common/src/consumer/delivery.rs")),
    ("control.rs", include_str!("../../common/src/control.rs")),
    ("endpoint.rs", include_str!("../../common/src/endpoint.rs")),
    ("endpoint/settings.rs", include_str!("../../common/src/endpoint/settings.rs")),
];

/// Those of what `bind` gives are in its own example.
const IN_ANOTHERS: [&str; 2] = ["accept", "endpoint"];

#[test]
fn every_public_method_of_a_client_has_an_example_that_runs() {
    let mut count = 0;
    for (file, source) in SOURCES {
        let lines: Vec<&str> = source.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = line.strip_prefix("    pub fn ").and_then(|rest| rest.split(['(', '<']).next()) else { continue };
            let above = lines[..at].iter().rev().take_while(|line| line.starts_with("    ///") || line.starts_with("    #["));
            let fences: Vec<&str> = above.map(|line| line.trim()).filter(|line| line.starts_with("/// ```")).collect();
            assert!(IN_ANOTHERS.contains(&name) || fences.len() >= 2, "{file}: {name} has no example");
            assert!(fences.iter().all(|fence| *fence == "/// ```"), "{file}: {name}'s example does not run: {fences:?}");
            count += 1;
        }
    }
    assert!(count > 55, "{count} methods found");
}
