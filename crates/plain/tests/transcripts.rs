//! Plays the transcripts.

use std::path::Path;
use std::sync::Arc;

use fanwire_plain::Plain;
use fanwire_testkit::transcript;

#[test]
fn transcripts() {
    transcript::run_dir(|| Arc::new(Plain), &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts"));
}
