//! Our images are the same whoever builds them where.

use karat_testbed::images;

#[test]
fn two_builds_that_share_nothing_give_the_same_digests() {
    if let Err(why) = images::ensure_target() {
        karat_testbed::not_run(
            "images::two_builds_that_share_nothing_give_the_same_digests",
            &why.to_string(),
        );
        return;
    }
    let first = images::build(|_| {}).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let second = images::build_into(elsewhere.path(), |_| {}).unwrap();
    assert_eq!(first.images, second.images);
    assert_eq!(first.images.len(), 4);
}
