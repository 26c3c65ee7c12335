//! The backup file: eight magic bytes, then chunks, each with kind, length and CRC32C, so that damage is found where it is;
//! the last one is the SHA-256 of everything before it, so that no two different files pass for each other.
//!
//! The first chunk is the header. For group 0 and then for every lane there follow the group's number, its state (one
//! record, cut into chunks) and its rows, table by table; then a trailer that counts the chunks, and the digest.

use std::io::{self, ErrorKind, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::BackupError;
use crate::codec;
use crate::store::Table;

const MAGIC: &[u8; 8] = b"WKRBKUP1";
/// Bytes gathered before a chunk is written.
const CHUNK_LEN: usize = 1 << 20;
/// Longest chunk read; a row may be longer than [`CHUNK_LEN`], more than this is damage.
const CHUNK_LEN_MAX: usize = 64 << 20;
/// Kind, length, checksum.
const HEAD_LEN: usize = 9;

/// What the file is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) cluster_id: String,
    pub(super) cluster_name: String,
    /// Release that wrote it.
    pub(super) version: String,
    /// Milliseconds since the Unix epoch, by the clock of the scheduler that wrote it.
    pub(super) taken: u64,
    /// Index up to which the tables of group 0 are complete.
    pub(super) meta: u64,
    /// The same of each lane, from lane 1.
    pub(super) lanes: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Header = 1,
    Group = 2,
    State = 3,
    Rows = 4,
    Trailer = 5,
    Digest = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Header,
            Self::Group,
            Self::State,
            Self::Rows,
            Self::Trailer,
            Self::Digest,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Tables of a backup by their number in it.
const TABLES: [Table; 7] = [
    Table::Documents,
    Table::Blobs,
    Table::JournalRows,
    Table::JournalPayloads,
    Table::JournalRecords,
    Table::JournalIndex,
    Table::JournalFences,
];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trailer {
    chunks: u64,
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

/// Writes a backup file.
pub(super) struct Writer<W> {
    out: W,
    digest: Sha256,
    chunks: u64,
    table: Option<Table>,
    rows: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the beginning.
    pub(super) fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self {
            out,
            digest: Sha256::new(),
            chunks: 0,
            table: None,
            rows: Vec::new(),
        };
        writer.bytes(MAGIC)?;
        writer.chunk(Kind::Header, &codec::encode(header)?)?;
        Ok(writer)
    }

    /// Begins a group with its state.
    pub(super) fn group(&mut self, group: u32, state: &[u8]) -> io::Result<()> {
        self.flush_rows()?;
        self.chunk(Kind::Group, &codec::encode(&group)?)?;
        state
            .chunks(CHUNK_LEN)
            .try_for_each(|part| self.chunk(Kind::State, part))
    }

    /// Writes a row of the group.
    pub(super) fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.table != Some(table) || self.rows.len() + key.len() + value.len() > CHUNK_LEN {
            self.flush_rows()?;
            self.table = Some(table);
        }
        for part in [key, value] {
            let len =
                u32::try_from(part.len()).map_err(|_| io::Error::other("a row is longer than 4 GiB"))?;
            self.rows.extend(len.to_le_bytes());
            self.rows.extend(part);
        }
        Ok(())
    }

    /// Writes the end, and gives back what it was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.flush_rows()?;
        let trailer = Trailer { chunks: self.chunks };
        self.chunk(Kind::Trailer, &codec::encode(&trailer)?)?;
        let digest: [u8; 32] = self.digest.clone().finalize().into();
        self.chunk(Kind::Digest, &digest)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn flush_rows(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let Some(table) = self.table.take() else {
            return Ok(());
        };
        let number = TABLES.iter().position(|known| *known == table);
        let number = number.and_then(|number| u8::try_from(number).ok());
        let number = number.ok_or_else(|| io::Error::other("a table that no backup has"))?;
        let mut payload = vec![number];
        payload.extend(rows);
        self.chunk(Kind::Rows, &payload)
    }

    fn chunk(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let len =
            u32::try_from(payload.len()).map_err(|_| io::Error::other("a chunk is longer than 4 GiB"))?;
        let mut head = vec![kind as u8];
        head.extend(len.to_le_bytes());
        head.extend(checksum(kind as u8, payload).to_le_bytes());
        self.bytes(&head)?;
        self.bytes(payload)?;
        self.chunks += 1;
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.out.write_all(bytes)
    }
}

/// A key and its value.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// What a chunk carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A group begins.
    Group(u32),
    /// Part of its state.
    State(Vec<u8>),
    /// Some of its rows.
    Rows(Table, Vec<Row>),
}

/// Reads a backup file chunk by chunk, and checks every byte of it.
pub(super) struct Reader<R> {
    input: R,
    /// Bytes read.
    offset: u64,
    digest: Sha256,
    chunks: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    pub(super) fn new(input: R) -> Result<(Self, Header), BackupError> {
        let mut reader = Self {
            input,
            offset: 0,
            digest: Sha256::new(),
            chunks: 0,
        };
        let mut magic = [0; MAGIC.len()];
        reader.fill(&mut magic)?;
        if magic != *MAGIC {
            return Err(BackupError::damaged(
                0,
                "it does not start like a backup of this release",
            ));
        }
        reader.digest.update(magic);
        match reader.chunk()? {
            (Kind::Header, at, payload) => {
                let header = codec::decode(&payload);
                let header = header.map_err(|error| BackupError::damaged(at, error.to_string()))?;
                Ok((reader, header))
            }
            (kind, at, _) => Err(BackupError::damaged(at, format!("it starts with {kind:?}"))),
        }
    }

    /// Bytes read so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next part; after the last one the digest of the file.
    pub(super) fn next(&mut self) -> Result<Result<Part, [u8; 32]>, BackupError> {
        let (kind, at, payload) = self.chunk()?;
        let damaged = |what: String| BackupError::damaged(at, what);
        let part = match kind {
            Kind::Group => {
                let group = codec::decode(&payload).map_err(|error| damaged(error.to_string()))?;
                Part::Group(group)
            }
            Kind::State => Part::State(payload),
            Kind::Rows => parse_rows(&payload).map_err(|what| damaged(what.to_owned()))?,
            Kind::Trailer => {
                let trailer: Trailer = codec::decode(&payload).map_err(|error| damaged(error.to_string()))?;
                if trailer.chunks + 1 != self.chunks {
                    return Err(damaged("the trailer counts other chunks".to_owned()));
                }
                return self.end().map(Err);
            }
            Kind::Header | Kind::Digest => return Err(damaged(format!("{kind:?} in the middle"))),
        };
        Ok(Ok(part))
    }

    fn end(&mut self) -> Result<[u8; 32], BackupError> {
        let digest: [u8; 32] = self.digest.clone().finalize().into();
        let (kind, at, payload) = self.chunk()?;
        if kind != Kind::Digest || payload != digest {
            let what = "the SHA-256 of what is before it does not match";
            return Err(BackupError::damaged(at, what));
        }
        let end = self.offset;
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(digest),
            Ok(_) => Err(BackupError::damaged(end, "bytes follow the end")),
            Err(source) => Err(BackupError::Read { offset: end, source }),
        }
    }

    /// Kind, place and payload of the next chunk.
    fn chunk(&mut self) -> Result<(Kind, u64, Vec<u8>), BackupError> {
        let at = self.offset;
        let mut head = [0; HEAD_LEN];
        self.fill(&mut head)?;
        let [kind, len @ .., c0, c1, c2, c3] = head;
        let len = u32::from_le_bytes(len);
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        if wanted > CHUNK_LEN_MAX {
            return Err(BackupError::damaged(at, format!("a chunk of {len} bytes")));
        }
        let mut payload = vec![0; wanted];
        self.fill(&mut payload)?;
        if checksum(kind, &payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(BackupError::damaged(at, "the checksum of a chunk does not match"));
        }
        let known = Kind::from_byte(kind);
        let kind = known.ok_or_else(|| BackupError::damaged(at, format!("a chunk of kind {kind}")))?;
        if kind != Kind::Digest {
            self.digest.update(head);
            self.digest.update(&payload);
        }
        self.chunks += 1;
        Ok((kind, at, payload))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        let offset = self.offset;
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.offset += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(BackupError::damaged(offset, "it is cut off behind this byte"))
            }
            Err(source) => Err(BackupError::Read { offset, source }),
        }
    }
}

fn parse_rows(payload: &[u8]) -> Result<Part, &'static str> {
    let (number, mut rest) = payload.split_first().ok_or("rows of no table")?;
    let table = *TABLES
        .get(usize::from(*number))
        .ok_or("rows of a table that is unknown here")?;
    let mut take = || -> Result<Option<Vec<u8>>, &'static str> {
        if rest.is_empty() {
            return Ok(None);
        }
        let (len, after) = rest.split_first_chunk::<4>().ok_or("a row is cut off")?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| "a row is too long")?;
        let (part, after) = after.split_at_checked(len).ok_or("a row is cut off")?;
        rest = after;
        Ok(Some(part.to_vec()))
    };
    let mut rows = Vec::new();
    while let Some(key) = take()? {
        rows.push((key, take()?.ok_or("a row has no value")?));
    }
    Ok(Part::Rows(table, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            cluster_id: "c".to_owned(),
            cluster_name: "n".to_owned(),
            version: "0.1.0".to_owned(),
            taken: 1,
            meta: 7,
            lanes: vec![3],
        }
    }

    fn file() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        writer.group(0, b"tables").unwrap();
        writer.row(Table::Documents, b"k1", b"v1").unwrap();
        writer.row(Table::Documents, b"k2", b"").unwrap();
        writer.row(Table::Blobs, b"k3", b"v3").unwrap();
        writer.group(1, b"lane").unwrap();
        writer.row(Table::JournalRows, b"k4", b"v4").unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Header, Vec<Part>, [u8; 32]), BackupError> {
        let (mut reader, header) = Reader::new(bytes)?;
        let mut parts = Vec::new();
        loop {
            match reader.next()? {
                Ok(part) => parts.push(part),
                Err(digest) => return Ok((header, parts, digest)),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_in_its_order() {
        let (read_header, parts, digest) = read(&file()).unwrap();
        assert_eq!(read_header, header());
        let row = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        let wanted = [
            Part::Group(0),
            Part::State(b"tables".to_vec()),
            Part::Rows(Table::Documents, vec![row(b"k1", b"v1"), row(b"k2", b"")]),
            Part::Rows(Table::Blobs, vec![row(b"k3", b"v3")]),
            Part::Group(1),
            Part::State(b"lane".to_vec()),
            Part::Rows(Table::JournalRows, vec![row(b"k4", b"v4")]),
        ];
        assert_eq!(parts, wanted);
        let bytes = file();
        let hashed = &bytes[..bytes.len() - HEAD_LEN - 32];
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(hashed)));
    }

    #[test]
    fn a_file_cut_at_any_byte_is_refused_there() {
        let bytes = file();
        for len in 0..bytes.len() {
            match read(&bytes[..len]) {
                Err(BackupError::Damaged { offset, what }) => {
                    assert!(what.contains("cut off") && offset <= len as u64, "{len}: {what}");
                }
                other => panic!("cut at {len}: {other:?}"),
            }
        }
        let mut longer = bytes;
        longer.push(0);
        let error = read(&longer).unwrap_err().to_string();
        assert!(error.contains("bytes follow the end"), "{error}");
    }

    #[test]
    fn a_file_with_any_bit_flipped_is_refused() {
        let bytes = file();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn chunks_of_another_file_do_not_pass() {
        // Each chunk is whole, the file is not the one that was written.
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        writer.group(0, b"tables").unwrap();
        writer.row(Table::Documents, b"k1", b"v2").unwrap();
        let other = writer.finish().unwrap();
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        writer.group(0, b"tables").unwrap();
        writer.row(Table::Documents, b"k1", b"v1").unwrap();
        let mut bytes = writer.finish().unwrap();
        assert_eq!(bytes.len(), other.len());
        let digest = bytes.len() - HEAD_LEN - 32;
        bytes.truncate(digest);
        bytes.extend(&other[digest..]);
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains("SHA-256"), "{error}");
    }
}
