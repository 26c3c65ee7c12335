//! Reads a backup group by group and counts what is in it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use whiskraft_state::journal::{JournalRow, UnixMillis};
use whiskraft_state::{DocumentKey, State};
use whiskraft_types::LogRevision;

use super::format::{Header, Part, Reader, Row};
use super::{Backup, BackupError};
use crate::codec;
use crate::store::{LaneState, Table};
use crate::types::META_GROUP;

/// Buffer in front of the file.
const BUFFER_LEN: usize = 1 << 20;

/// What a group of a backup holds, in this order: state, then rows.
pub(super) enum Content {
    /// The tables of group 0.
    Meta(Box<State>),
    /// How far a lane is.
    Lane(u32, LaneState),
    /// Rows of the group that has begun.
    Rows(Table, Vec<Row>),
}

/// Visits everything in a file, which is known to be whole only when this has returned.
pub(super) fn read(
    file: &Path,
    visit: &mut dyn FnMut(Content) -> std::io::Result<()>,
) -> Result<Backup, BackupError> {
    let opened = File::open(file).map_err(|source| BackupError::Read { offset: 0, source })?;
    read_from(BufReader::with_capacity(BUFFER_LEN, opened), visit)
}

fn read_from<R: Read>(
    input: R,
    visit: &mut dyn FnMut(Content) -> std::io::Result<()>,
) -> Result<Backup, BackupError> {
    let (mut reader, header) = Reader::new(input)?;
    let mut groups = Groups::new(&header, visit);
    loop {
        let offset = reader.offset();
        let damaged = |what: String| BackupError::damaged(offset, what);
        match reader.next()? {
            Ok(Part::Group(group)) => groups.begin(group).map_err(damaged)?,
            Ok(Part::State(part)) => groups.state(&part).map_err(damaged)?,
            Ok(Part::Rows(table, rows)) => groups.rows(table, rows).map_err(damaged)?,
            Err(digest) => {
                groups.end().map_err(damaged)?;
                return Ok(Backup {
                    bytes: reader.offset(),
                    digest,
                    ..groups.backup
                });
            }
        }
    }
}

/// The groups of a backup as they come.
struct Groups<'a> {
    visit: &'a mut dyn FnMut(Content) -> std::io::Result<()>,
    lanes: u32,
    /// The group that has begun.
    group: Option<u32>,
    /// Its state as far as it has come; `None` once it is complete.
    state: Option<Vec<u8>>,
    backup: Backup,
}

impl<'a> Groups<'a> {
    fn new(header: &Header, visit: &'a mut dyn FnMut(Content) -> std::io::Result<()>) -> Self {
        let backup = Backup {
            cluster_id: header.cluster_id.clone(),
            cluster_name: header.cluster_name.clone(),
            version: header.version.clone(),
            taken: UnixMillis(header.taken),
            revision: LogRevision(header.meta),
            lanes: header.lanes.iter().copied().map(LogRevision).collect(),
            bytes: 0,
            digest: [0; 32],
            actions: 0,
            documents: 0,
            blobs: 0,
            namespaces: 0,
            queues: 0,
            open: 0,
            records: 0,
        };
        Self {
            visit,
            lanes: u32::try_from(header.lanes.len()).unwrap_or(u32::MAX),
            group: None,
            state: None,
            backup,
        }
    }

    fn begin(&mut self, group: u32) -> Result<(), String> {
        self.complete_state()?;
        let wanted = self.group.map_or(META_GROUP, |group| group + 1);
        if group != wanted || group > self.lanes {
            return Err(format!("group {group} in place of {wanted} of {}", self.lanes));
        }
        self.group = Some(group);
        self.state = Some(Vec::new());
        Ok(())
    }

    fn state(&mut self, part: &[u8]) -> Result<(), String> {
        match &mut self.state {
            Some(record) => {
                record.extend(part);
                Ok(())
            }
            None => Err("state that belongs to no group".to_owned()),
        }
    }

    fn rows(&mut self, table: Table, rows: Vec<Row>) -> Result<(), String> {
        self.complete_state()?;
        let group = self.group.ok_or("rows that belong to no group")?;
        let is_of_meta = matches!(table, Table::Documents | Table::Blobs);
        if is_of_meta != (group == META_GROUP) {
            return Err(format!("rows of table {table:?} in group {group}"));
        }
        if !rows.iter().all(|(key, _)| key.starts_with(&group.to_be_bytes())) {
            return Err(format!("a row of another group in group {group}"));
        }
        match table {
            Table::JournalRows => rows.iter().try_for_each(|(_, value)| self.count_row(value))?,
            Table::JournalRecords => self.backup.records += rows.len() as u64,
            _ => {}
        }
        (self.visit)(Content::Rows(table, rows)).map_err(|error| error.to_string())
    }

    fn count_row(&mut self, value: &[u8]) -> Result<(), String> {
        let (_, row) = crate::store::split_expiry(value).ok_or("a row of the journal is cut off")?;
        let row: JournalRow = codec::decode(row).map_err(|error| error.to_string())?;
        self.backup.open += u64::from(row.is_open());
        Ok(())
    }

    /// The state of a group is complete when its rows begin, or the next group does.
    fn complete_state(&mut self) -> Result<(), String> {
        let Some(record) = self.state.take() else {
            return Ok(());
        };
        let content = match self.group {
            Some(META_GROUP) | None => {
                let state: State = codec::decode(&record).map_err(|error| error.to_string())?;
                self.count_tables(&state);
                Content::Meta(Box::new(state))
            }
            Some(lane) => {
                let state = codec::decode(&record).map_err(|error| error.to_string())?;
                Content::Lane(lane, state)
            }
        };
        (self.visit)(content).map_err(|error| error.to_string())
    }

    fn count_tables(&mut self, state: &State) {
        let backup = &mut self.backup;
        for (key, _) in state.all_documents() {
            backup.documents += 1;
            backup.actions += u64::from(key.kind == DocumentKey::ACTION);
        }
        backup.blobs = state.blobs().count() as u64;
        backup.namespaces = state.namespaces().count() as u64;
        backup.queues = state.queues_len() as u64;
    }

    fn end(&mut self) -> Result<(), String> {
        self.complete_state()?;
        match self.group {
            Some(group) if group == self.lanes => Ok(()),
            _ => Err("it ends before its last group".to_owned()),
        }
    }
}
