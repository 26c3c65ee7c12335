//! The hash by which all schedulers make the same choice. Part of the replicated format: it may not change.

/// FNV-1a, 64 bit: start value and multiplier.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, finished with the mixer of SplitMix64 so that both halves depend on every byte.
pub(crate) fn of(bytes: impl Iterator<Item = u8>) -> u64 {
    let folded = bytes.fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    let mixed = (folded ^ (folded >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
