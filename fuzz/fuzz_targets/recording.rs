//! A recording as a stranger may send it: the input is the text of its lines, or, where it begins with the magic of zstd,
//! the file as it is. Whatever comes out is an error or a recording, within the limits of the format.
#![no_main]

use karat_engine::recording::format::{BLOBS_FOLDER, RECORDING_FILE};
use karat_engine::recording::{ReadOptions, read_with};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let packed = if data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        data.to_vec()
    } else {
        zstd::encode_all(data, 1).expect("zstd")
    };
    std::fs::create_dir(folder.path().join(BLOBS_FOLDER)).expect("blobs");
    std::fs::write(folder.path().join(RECORDING_FILE), packed).expect("recording");
    for (unfinished, withheld) in [(false, true), (true, true), (false, false)] {
        let options = ReadOptions {
            unfinished,
            withheld,
            ..ReadOptions::default()
        };
        if let Ok(recording) = read_with(folder.path(), &options) {
            for entry in recording.entries() {
                let _ = recording.reply(entry);
            }
        }
    }
});
