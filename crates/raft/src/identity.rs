//! Who a data directory belongs to: cluster, scheduler, incarnation; and the lock that keeps a second process out.
//!
//! The record is written once when the directory is made and once when its cluster has formed (or the node was admitted
//! to one). A node that has not the second has no vote. Incarnations are random, so a wiped or swapped directory under
//! a known id is recognised by the others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use whiskraft_types::SchedulerId;

use crate::codec;
use crate::error::StartError;

/// Version of the layout of a data directory.
const LAYOUT: u32 = 2;
const FILE: &str = "identity";
const LOCK: &str = "lock";
/// Hex digits of a cluster id: half a SHA-256.
const CLUSTER_ID_LEN: usize = 32;

/// Drawn when a data directory is made.
pub(crate) type Incarnation = [u8; 16];

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    layout: u32,
    /// Name the operator gave the cluster.
    pub(crate) cluster_name: String,
    /// Identity of the cluster; empty until a joining node learns it.
    pub(crate) cluster_id: String,
    /// The scheduler; 0 until a joining node is given one.
    pub(crate) id: u64,
    /// Identity of this directory.
    pub(crate) incarnation: Incarnation,
    /// Incarnations of the initial members, once all are known; for a node that joined, of itself. Empty: the
    /// directory has no part in any cluster yet.
    pub(crate) members: BTreeMap<u64, Incarnation>,
    /// Whether it asks for a vote: it joined, and was no voter yet. From then on operators decide.
    pub(crate) asks_vote: bool,
    /// Lanes of the journal, counted when the cluster formed.
    pub(crate) lanes: u32,
    /// Of what backup, and with which token, the cluster was restored; `None` if it formed empty.
    pub(crate) origin: Option<[u8; 32]>,
}

impl Identity {
    /// Identity of a directory that was just made.
    pub(crate) fn new(cluster_name: &str, cluster_id: String, id: u64, lanes: u32) -> io::Result<Self> {
        let mut incarnation = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut incarnation)?;
        let cluster_name = cluster_name.to_owned();
        Ok(Self {
            layout: LAYOUT,
            cluster_name,
            cluster_id,
            id,
            incarnation,
            members: BTreeMap::new(),
            asks_vote: false,
            lanes,
            origin: None,
        })
    }

    /// Writes it into a data directory that this process holds, durably.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        write(dir, self)
    }

    /// Whether the cluster has formed, as far as this directory knows.
    pub(crate) fn is_formed(&self) -> bool {
        !self.members.is_empty()
    }
}

/// Identity of the cluster that these members form.
pub(crate) fn cluster_id(name: &str, members: &BTreeMap<SchedulerId, String>) -> String {
    hash_of(name, members, None)
}

/// Identity of the cluster that these members restore: never that of one that formed empty, or of another backup.
pub(crate) fn restored_cluster_id(
    name: &str,
    members: &BTreeMap<SchedulerId, String>,
    origin: &[u8; 32],
) -> String {
    hash_of(name, members, Some(origin))
}

fn hash_of(name: &str, members: &BTreeMap<SchedulerId, String>, origin: Option<&[u8; 32]>) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    part(name);
    for (id, address) in members {
        part(&id.to_string());
        part(address);
    }
    hash.update(origin.map(<[u8; 32]>::as_slice).unwrap_or_default());
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    digits[..CLUSTER_ID_LEN].to_owned()
}

/// Keeps other processes out of a data directory while it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

/// A locked data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: DirLock,
}

impl DataDir {
    /// Creates and locks the directory.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let failed = |what: &str| {
            let what = what.to_owned();
            |source| StartError::Storage {
                dir: path.to_owned(),
                what,
                source,
            }
        };
        let is_new = !path.is_dir();
        fs::create_dir_all(path)
            .map_err(failed("cannot be created; choose another or fix its permissions"))?;
        if is_new {
            // Lost in a power cut, it would come back with another incarnation than the others know.
            sync_parent(path).map_err(failed("its parent directory cannot be synced"))?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK));
        let file = file.map_err(failed(
            "its lock file cannot be written; check owner and permissions",
        ))?;
        Self::lock(path, file)
    }

    /// Locks a directory that is there, to read it; nothing is made.
    pub(crate) fn open_existing(path: &Path) -> Result<Self, StartError> {
        let file = File::open(path.join(LOCK)).map_err(|source| StartError::Storage {
            dir: path.to_owned(),
            what: "it has no lock file that can be read, so it is not a data directory of a scheduler"
                .to_owned(),
            source,
        })?;
        Self::lock(path, file)
    }

    fn lock(path: &Path, file: File) -> Result<Self, StartError> {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                lock: DirLock { _file: file },
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Locked { dir: path.to_owned() }),
            Err(error) => Err(StartError::Storage {
                dir: path.to_owned(),
                what: "cannot be locked".to_owned(),
                source: error.into(),
            }),
        }
    }

    /// The lock alone, to be kept until the store is closed.
    pub(crate) fn into_lock(self) -> DirLock {
        self.lock
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a part of the node keeps its files.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// An error about this directory.
    pub(crate) fn error(&self, what: &str, source: io::Error) -> StartError {
        StartError::Storage {
            dir: self.path.clone(),
            what: what.to_owned(),
            source,
        }
    }

    /// The identity, if the directory has one. A directory with data and without identity is damaged.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, StartError> {
        let bytes = match fs::read(self.path.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.check_empty().map(|()| None),
            Err(error) => return Err(self.error("its identity cannot be read", error)),
        };
        let identity = parse(&bytes).map_err(|reason| {
            StartError::Identity(format!(
                "identity of data directory {} is damaged ({reason}); restore the directory, or remove this scheduler \
                 from the cluster, empty the directory and join as a new member",
                self.path.display()
            ))
        })?;
        if identity.layout == LAYOUT {
            Ok(Some(identity))
        } else {
            Err(StartError::Identity(format!(
                "data directory {} has layout {}, this release reads {LAYOUT}; start the release that wrote it",
                self.path.display(),
                identity.layout
            )))
        }
    }

    fn check_empty(&self) -> Result<(), StartError> {
        let entries = fs::read_dir(&self.path).map_err(|error| self.error("cannot be listed", error))?;
        for entry in entries {
            let name = entry
                .map_err(|error| self.error("cannot be listed", error))?
                .file_name();
            if name != LOCK && name != format!("{FILE}.tmp").as_str() && name != "lost+found" {
                return Err(StartError::Identity(format!(
                    "data directory {} holds {name:?} but no identity: it is not a data directory of this program, \
                     or its identity was deleted; choose an empty directory",
                    self.path.display()
                )));
            }
        }
        Ok(())
    }

    /// Writes the identity, durably.
    pub(crate) fn save(&self, identity: &Identity) -> Result<(), StartError> {
        identity
            .save(&self.path)
            .map_err(|error| self.error("its identity cannot be written", error))
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn write(dir: &Path, identity: &Identity) -> io::Result<()> {
    let mut bytes = codec::encode(identity)?;
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    let temporary = dir.join(format!("{FILE}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

fn parse(bytes: &[u8]) -> Result<Identity, String> {
    let (record, checksum) = bytes.split_last_chunk::<4>().ok_or("it is cut off")?;
    if crc32c::crc32c(record) != u32::from_le_bytes(*checksum) {
        return Err("its checksum does not match".to_owned());
    }
    codec::decode(record).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(addresses: &[(u64, &str)]) -> BTreeMap<SchedulerId, String> {
        addresses
            .iter()
            .map(|(id, address)| (SchedulerId(*id), (*address).to_owned()))
            .collect()
    }

    #[test]
    fn cluster_id_depends_on_name_and_every_member() {
        let members = cluster(&[(1, "a:1"), (2, "b:1")]);
        let id = cluster_id("x", &members);
        assert_eq!(id, cluster_id("x", &members));
        assert_ne!(id, cluster_id("y", &members));
        assert_ne!(id, cluster_id("x", &cluster(&[(1, "a:1"), (2, "b:2")])));
        assert_eq!(id.len(), CLUSTER_ID_LEN);
    }

    #[test]
    fn identity_survives_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert_eq!(data.identity().unwrap(), None);
        let identity = Identity::new("x", "c".to_owned(), 1, 3).unwrap();
        data.save(&identity).unwrap();
        assert_eq!(data.identity().unwrap(), Some(identity));

        let path = dir.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = data.identity().unwrap_err().to_string();
        assert!(
            error.contains("is damaged (its checksum does not match)"),
            "{error}"
        );
    }

    #[test]
    fn second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(
            DataDir::open(dir.path()),
            Err(StartError::Locked { .. })
        ));
        drop(first);
        assert!(DataDir::open(dir.path()).is_ok());
    }

    #[test]
    fn directory_with_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
        let error = DataDir::open(dir.path())
            .unwrap()
            .identity()
            .unwrap_err()
            .to_string();
        assert!(error.contains("holiday.jpg"), "{error}");
    }
}
