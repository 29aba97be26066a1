//! Released files in the node's store, below `install/`: for `kubestrap install` without another network.

use super::folder::FolderStore;
use super::s3::S3Store;
use crate::adapters::durable;
use async_trait::async_trait;
use bytes::Bytes;
use kubestrap_core::model::cause::Outcome;
use kubestrap_core::ports::ETag;
use kubestrap_install::download::Body;
use kubestrap_install::source::{Opened, StoreFiles};
use std::fs::File;
use std::io::Read;
use std::rc::Rc;

/// Bytes that are handed on at a time.
const PIECE: usize = 256 * 1024;

fn below_install(key: &str) -> String {
    format!("install/{key}")
}

#[async_trait(?Send)]
impl StoreFiles for FolderStore {
    async fn open(&self, key: &str) -> Outcome<Option<Opened>> {
        let opened = FolderStore::open(self, &below_install(key))?;
        Ok(opened.map(|(file, length)| {
            let place = format!("{}{key}", self.place());
            Opened { length: Some(length), body: Box::new(InFile { file, place }) }
        }))
    }

    fn place(&self) -> String {
        format!("{}/install/", self.folder().display())
    }
}

struct InFile {
    file: File,
    place: String,
}

#[async_trait(?Send)]
impl Body for InFile {
    async fn next(&mut self) -> Outcome<Option<Bytes>> {
        let mut piece = vec![0; PIECE];
        let read = self.file.read(&mut piece);
        let read = read.map_err(|error| durable::failure(format!("read {}", self.place), &error))?;
        piece.truncate(read);
        Ok((read > 0).then(|| Bytes::from(piece)))
    }
}

/// Files of a bucket.
pub struct InBucket(pub Rc<S3Store>);

#[async_trait(?Send)]
impl StoreFiles for InBucket {
    async fn open(&self, key: &str) -> Outcome<Option<Opened>> {
        let key = below_install(key);
        let first = self.0.part(&key, 0, None).await?;
        Ok(first.map(|part| {
            let length = Some(part.total);
            let (read, total, etag) = (part.bytes.len() as u64, part.total, part.etag);
            let body = InParts { store: self.0.clone(), key, etag, read, total, first: Some(part.bytes) };
            Opened { length, body: Box::new(body) }
        }))
    }

    fn place(&self) -> String {
        format!("{}/", self.0.url("install"))
    }
}

struct InParts {
    store: Rc<S3Store>,
    key: String,
    etag: ETag,
    read: u64,
    total: u64,
    first: Option<Bytes>,
}

#[async_trait(?Send)]
impl Body for InParts {
    async fn next(&mut self) -> Outcome<Option<Bytes>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Ok(Some(first));
        }
        if self.read >= self.total {
            return Ok(None);
        }
        let part = self.store.part(&self.key, self.read, Some(&self.etag)).await?;
        let bytes = part.map(|part| part.bytes).filter(|bytes| !bytes.is_empty());
        self.read += bytes.as_ref().map_or(0, Bytes::len) as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_of_a_folder_are_read_whole_and_links_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let place = folder.path().join("install/files/runc/1.4.3/amd64");
        std::fs::create_dir_all(&place).expect("folders");
        let content = vec![7; 3 * PIECE + 1];
        std::fs::write(place.join("runc.amd64"), &content).expect("file");
        std::os::unix::fs::symlink("/etc/passwd", place.join("link")).expect("link");
        let store = FolderStore::new(folder.path());
        let files: &dyn StoreFiles = &store;
        let mut opened = files.open("files/runc/1.4.3/amd64/runc.amd64").await.expect("opened").expect("there");
        assert_eq!(opened.length, Some(content.len() as u64));
        let mut read = Vec::new();
        while let Some(piece) = opened.body.next().await.expect("read") {
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, content);
        assert!(files.open("files/runc/1.4.3/amd64/absent").await.expect("absent").is_none());
        assert!(files.open("files/runc/1.4.3/amd64/link").await.is_err());
        assert!(files.open("../x").await.is_err());
        assert_eq!(files.place(), format!("{}/install/", folder.path().display()));
    }
}
