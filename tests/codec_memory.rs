//! What a connection's compression says that it holds, beside what the kernel says that the process has.
//!
//! One test, since others in the same process would be counted with it.

use std::fs;

use echod::compression::{Codec, Method, Terms};

/// So many that what the allocator rounds up to does not matter.
const CODECS: usize = 200;

/// Memory that the process may write to, in bytes.
fn data() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.expect("a size") * 1024
}

/// A codec in the middle of a frame each way, and what was to be asked for it before.
fn busy(method: Method, first: &[u8]) -> (Codec, usize) {
    let mut codec = Codec::new(Terms {
        method,
        max_window: 8 << 20,
        max_ratio: Some(200),
    });
    let mut plain = [0; 100];
    let needs = codec.needs(first);
    let count = codec.expand(first, &mut plain);
    assert_eq!(&plain[..count], b"a");
    codec.send(&plain[..count]);
    codec.send(b"something");
    codec.flush();
    drop(codec.drain());
    assert!(codec.has_states() && !codec.is_between());
    (codec, needs)
}

#[test]
fn what_is_told_of_memory_is_what_the_process_has() {
    // A header without a name, and a stored block that has more to come.
    let gzip = [
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0, 9, 0, 0xf6, 0xff, b'a',
    ];
    // A window of 2 MiB, and a raw block that has more to come.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58, 0x48, 0, 0, b'a'];
    // What is given back would be taken again, and not be seen.
    let mut kept = Vec::new();
    for (method, first) in [(Method::Gzip, &gzip[..]), (Method::Zstd, &zstd)] {
        // What is made once is made now.
        kept.push(busy(method, first).0);
        let before = data();
        let codecs: Vec<_> = (0..CODECS).map(|_| busy(method, first)).collect();
        let taken = data() - before;
        let told: usize = codecs.iter().map(|(codec, _)| codec.memory()).sum();
        let asked: usize = codecs.iter().map(|(_, needs)| needs).sum();
        assert!(
            taken <= told + told / 50,
            "{method:?}: {taken}, told {told}"
        );
        assert!(taken <= asked, "{method:?}: {taken}, asked for {asked}");
        assert!(taken >= told / 2, "{method:?}: {taken}, told {told}");
        kept.extend(codecs.into_iter().map(|(codec, _)| codec));
    }
}
