//! How often the memory allocator is asked per activation in a frame: a guard against regressions. The bounds are what
//! was measured when they were written; who needs more raises them and says why.

#[path = "../benches/wire/mod.rs"]
mod wire;

use bytes::BytesMut;
use whiskraft_proto::{InvalidMessage, Message, v1};

/// Activations in a frame.
const COUNT: u64 = 64;

/// Allocations to write, read and parse a frame.
#[derive(Debug, PartialEq, Eq)]
struct Allocations {
    encode: u64,
    decode: u64,
    parse: u64,
}

fn measure<F: Message + Default>(
    frame: &F,
    parse: impl Fn(F) -> Result<usize, InvalidMessage>,
) -> Allocations {
    let count = |work: &mut dyn FnMut()| allocation_counter::measure(work).count_total;
    let mut buffer = BytesMut::with_capacity(frame.encoded_len());
    let encode = count(&mut || frame.encode(&mut buffer).expect("the buffer grows"));
    let bytes = wire::encoded(frame);
    let mut decoded = None;
    let decode = count(&mut || decoded = Some(F::decode(bytes.clone()).expect("what was encoded")));
    let mut decoded = decoded.take();
    let parse = count(&mut || {
        assert_eq!(
            parse(decoded.take().expect("decoded before")).expect("valid") as u64,
            COUNT
        );
    });
    Allocations {
        encode,
        decode,
        parse,
    }
}

fn check(
    name: &str,
    Allocations {
        encode,
        decode,
        parse,
    }: Allocations,
    bounds: Allocations,
) {
    println!("{name}: encode {encode}, decode {decode}, parse {parse} for {COUNT} activations");
    assert!(encode <= bounds.encode, "{name}: encode");
    assert!(decode <= bounds.decode, "{name}: decode");
    assert!(parse <= bounds.parse, "{name}: parse");
}

#[test]
fn submissions() {
    let measured = measure::<v1::SubmitFrame>(&wire::submit(COUNT), wire::parse_submit);
    check("submit", measured, bounds(64, 267, 256));
}

#[test]
fn hand_outs() {
    let measured = measure::<v1::PullDown>(&wire::deliver(COUNT), wire::parse_deliver);
    check("deliver", measured, bounds(64, 139, 0));
}

#[test]
fn ends() {
    let measured = measure::<v1::PullUp>(&wire::completed(COUNT), wire::parse_completed);
    check("completed", measured, bounds(64, 139, 128));
}

#[test]
fn results() {
    let measured = measure::<v1::ResultFrame>(&wire::results(COUNT), wire::parse_results);
    check("results", measured, bounds(64, 11, 0));
}

const fn bounds(encode: u64, decode: u64, parse: u64) -> Allocations {
    Allocations {
        encode,
        decode,
        parse,
    }
}
