//! The snapshot file: eight magic bytes, then chunks, each with kind, length and CRC32C.
//!
//! The first chunk is the header, then come the tables (one record, cut into chunks), the rows that live on disk,
//! and a trailer that counts what was before it. A file without a whole trailer is not a snapshot.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::engine::Table;
use crate::codec;
use crate::types::{LogId, LogIdRecord, MembershipRecord, SnapshotMeta, Stored};

const MAGIC: &[u8; 8] = b"WKRSNAP1";
/// Bytes gathered before a chunk is written.
const CHUNK_LEN: usize = 1 << 20;
/// Longest chunk read; a row (an entity's body) may be longer than [`CHUNK_LEN`], more than this is damage.
const CHUNK_LEN_MAX: usize = 64 << 20;

/// What a snapshot covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    /// The Raft group.
    pub(crate) group: u32,
    /// Last entry in it.
    pub(crate) last: Option<LogIdRecord>,
    /// Membership as of that entry.
    pub(crate) membership: MembershipRecord,
}

impl SnapshotHeader {
    /// openraft's description of the same.
    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: self.last.map(LogId::from),
            last_membership: Stored::try_from(self.membership.clone())?,
        })
    }
}

/// A complete snapshot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it covers.
    pub(crate) header: SnapshotHeader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Header = 1,
    State = 2,
    Documents = 3,
    Blobs = 4,
    Trailer = 5,
    JournalRows = 6,
    JournalPayloads = 7,
    JournalRecords = 8,
    JournalIndex = 9,
    JournalFences = 10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Header,
            Self::State,
            Self::Documents,
            Self::Blobs,
            Self::Trailer,
            Self::JournalRows,
            Self::JournalPayloads,
            Self::JournalRecords,
            Self::JournalIndex,
            Self::JournalFences,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }

    /// Of the rows of a table; log and small records of a group are in no snapshot.
    fn of_rows(table: Table) -> io::Result<Self> {
        Ok(match table {
            Table::Documents => Self::Documents,
            Table::Blobs => Self::Blobs,
            Table::JournalRows => Self::JournalRows,
            Table::JournalPayloads => Self::JournalPayloads,
            Table::JournalRecords => Self::JournalRecords,
            Table::JournalIndex => Self::JournalIndex,
            Table::JournalFences => Self::JournalFences,
            Table::Log | Table::Meta => {
                let text = format!("table {} is in no snapshot", table.name());
                return Err(io::Error::new(ErrorKind::InvalidInput, text));
            }
        })
    }

    /// The table of rows of this kind.
    const fn table(self) -> Option<Table> {
        match self {
            Self::Header | Self::State | Self::Trailer => None,
            Self::Documents => Some(Table::Documents),
            Self::Blobs => Some(Table::Blobs),
            Self::JournalRows => Some(Table::JournalRows),
            Self::JournalPayloads => Some(Table::JournalPayloads),
            Self::JournalRecords => Some(Table::JournalRecords),
            Self::JournalIndex => Some(Table::JournalIndex),
            Self::JournalFences => Some(Table::JournalFences),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trailer {
    chunks: u64,
    bytes: u64,
}

/// Writes the bytes of a snapshot, to a file or to whoever takes them.
pub(crate) struct SnapshotWriter<W: Write = BufWriter<File>> {
    out: W,
    chunks: u64,
    bytes: u64,
    rows: Vec<u8>,
    rows_kind: Kind,
}

impl SnapshotWriter {
    /// Creates the file and writes the header.
    pub(crate) fn create(path: &Path, header: &SnapshotHeader) -> io::Result<Self> {
        Self::new(BufWriter::new(File::create(path)?), header)
    }

    /// Writes the trailer and syncs the file.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.end()?.get_ref().sync_all()
    }
}

impl<W: Write> SnapshotWriter<W> {
    /// Writes the header.
    pub(crate) fn new(mut out: W, header: &SnapshotHeader) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let mut writer = Self {
            out,
            chunks: 0,
            bytes: 0,
            rows: Vec::new(),
            rows_kind: Kind::Documents,
        };
        writer.chunk(Kind::Header, &codec::encode(header)?)?;
        Ok(writer)
    }

    /// Writes the record of the tables.
    pub(crate) fn state(&mut self, record: &[u8]) -> io::Result<()> {
        record
            .chunks(CHUNK_LEN)
            .try_for_each(|part| self.chunk(Kind::State, part))
    }

    /// Writes one row of a table.
    pub(crate) fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        let kind = Kind::of_rows(table)?;
        if kind != self.rows_kind || self.rows.len() + key.len() + value.len() > CHUNK_LEN {
            self.flush_rows()?;
            self.rows_kind = kind;
        }
        for part in [key, value] {
            let len = u32::try_from(part.len()).map_err(|_| damaged("a row is longer than 4 GiB"))?;
            self.rows.extend(len.to_le_bytes());
            self.rows.extend(part);
        }
        Ok(())
    }

    /// Writes the trailer.
    pub(crate) fn end(mut self) -> io::Result<W> {
        self.flush_rows()?;
        let trailer = Trailer {
            chunks: self.chunks,
            bytes: self.bytes,
        };
        self.chunk(Kind::Trailer, &codec::encode(&trailer)?)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn flush_rows(&mut self) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.chunk(self.rows_kind, &rows)
    }

    fn chunk(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).map_err(|_| damaged("a chunk is longer than 4 GiB"))?;
        self.out.write_all(&[kind as u8])?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&checksum(kind as u8, payload).to_le_bytes())?;
        self.out.write_all(payload)?;
        self.chunks += 1;
        self.bytes += u64::from(len);
        Ok(())
    }
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("snapshot is damaged: {what}"))
}

/// Reads a snapshot file chunk by chunk and checks every byte of it.
struct SnapshotReader {
    file: BufReader<File>,
    chunks: u64,
    bytes: u64,
}

impl SnapshotReader {
    fn open(path: &Path) -> io::Result<(Self, SnapshotHeader)> {
        let mut file = BufReader::with_capacity(CHUNK_LEN, File::open(path)?);
        let mut magic = [0; 8];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(damaged("it does not start like a snapshot of this release"));
        }
        let mut reader = Self {
            file,
            chunks: 0,
            bytes: 0,
        };
        match reader.chunk()? {
            (Kind::Header, payload) => Ok((reader, codec::decode(&payload)?)),
            (kind, _) => Err(damaged(&format!("it starts with {kind:?}"))),
        }
    }

    fn chunk(&mut self) -> io::Result<(Kind, Vec<u8>)> {
        let mut head = [0; 9];
        self.file.read_exact(&mut head)?;
        let [kind, len @ .., c0, c1, c2, c3] = head;
        let len = u32::from_le_bytes(len);
        let wanted = usize::try_from(len).map_err(|_| damaged("a chunk is too long"))?;
        if wanted > CHUNK_LEN_MAX {
            return Err(damaged(&format!("a chunk of {len} bytes")));
        }
        let mut payload = vec![0; wanted];
        self.file.read_exact(&mut payload)?;
        if checksum(kind, &payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("the checksum of a chunk does not match"));
        }
        let kind = Kind::from_byte(kind).ok_or_else(|| damaged(&format!("a chunk of kind {kind}")))?;
        if kind != Kind::Trailer {
            self.chunks += 1;
            self.bytes += u64::from(len);
        }
        Ok((kind, payload))
    }

    /// The next chunk of content; `None` after a trailer that fits.
    fn next(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let (kind, payload) = self.chunk()?;
        if kind != Kind::Trailer {
            return Ok(Some((kind, payload)));
        }
        let trailer: Trailer = codec::decode(&payload)?;
        if trailer
            != (Trailer {
                chunks: self.chunks,
                bytes: self.bytes,
            })
        {
            return Err(damaged("the trailer counts other chunks"));
        }
        if self.file.read(&mut [0])? != 0 {
            return Err(damaged("bytes follow the trailer"));
        }
        Ok(None)
    }
}

/// Rows of a snapshot, one chunk of them.
pub(crate) type Rows = Vec<(Table, Vec<u8>, Vec<u8>)>;

fn parse_rows(table: Table, mut payload: &[u8]) -> io::Result<Rows> {
    let mut take = || -> io::Result<Option<Vec<u8>>> {
        if payload.is_empty() {
            return Ok(None);
        }
        let cut = || damaged("a row is cut off");
        let (len, rest) = payload.split_first_chunk::<4>().ok_or_else(cut)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| cut())?;
        let (part, rest) = rest.split_at_checked(len).ok_or_else(cut)?;
        payload = rest;
        Ok(Some(part.to_vec()))
    };
    let mut rows = Vec::new();
    while let Some(key) = take()? {
        let value = take()?.ok_or_else(|| damaged("a row has no value"))?;
        rows.push((table, key, value));
    }
    Ok(rows)
}

impl SnapshotFile {
    /// A file, after every byte of it was checked.
    pub(crate) fn check(path: &Path) -> io::Result<Self> {
        let (mut reader, header) = SnapshotReader::open(path)?;
        while reader.next()?.is_some() {}
        Ok(Self {
            path: path.to_owned(),
            header,
        })
    }

    /// The record of the tables.
    pub(crate) fn state(&self) -> io::Result<Vec<u8>> {
        let (mut reader, _) = SnapshotReader::open(&self.path)?;
        let mut record = Vec::new();
        while let Some((Kind::State, part)) = reader.next()? {
            record.extend(part);
        }
        Ok(record)
    }

    /// Visits the rows, in bounded pieces.
    pub(crate) fn rows(&self, mut visit: impl FnMut(Rows) -> io::Result<()>) -> io::Result<()> {
        let (mut reader, _) = SnapshotReader::open(&self.path)?;
        while let Some((kind, payload)) = reader.next()? {
            if let Some(table) = kind.table() {
                visit(parse_rows(table, &payload)?)?;
            }
        }
        Ok(())
    }

    /// Index of the last entry in it.
    pub(crate) fn index(&self) -> u64 {
        self.header.last.map_or(0, |last| last.index)
    }
}
