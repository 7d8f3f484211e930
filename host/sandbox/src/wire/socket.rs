//! Messages over a Unix socket that keeps their borders (SEQPACKET), with descriptors beside them.
//!
//! A message is one kind byte, one byte of flags and a body. A body that does not fit into a packet travels as a sealed
//! memory file, so packets stay small and a receiver needs one bounded buffer.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::payload::{PartitionFile, memory_file, seal};

/// Longest body inside a packet. Well below the kernel's default socket buffer of 208 KiB.
pub(crate) const PACKET_BODY: usize = 64 << 10;
/// Longest body at all: what a message may carry in a memory file.
const BODY_MAX: u64 = 1 << 30;
/// Most descriptors beside one message; the kernel's limit is 253.
pub(crate) const DESCRIPTORS_MAX: usize = 64;
/// Flag: the body is in the last descriptor.
const BODY_IN_FILE: u8 = 1;

/// A message as it was received.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A message that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    /// Owned: a packet may wait for room in the socket.
    descriptors: Vec<OwnedFd>,
}

impl Packet {
    /// A message of `kind`. A long body moves to a memory file.
    pub(crate) fn new(kind: u8, body: &[u8], mut descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        if descriptors.len() >= DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
        }
        let mut bytes = vec![kind, 0];
        if body.len() <= PACKET_BODY {
            bytes.extend_from_slice(body);
        } else {
            bytes[1] = BODY_IN_FILE;
            descriptors.push(body_file(body)?);
        }
        Ok(Self { bytes, descriptors })
    }
}

fn body_file(body: &[u8]) -> io::Result<OwnedFd> {
    let file = memory_file("message")?;
    write_all_at(&file, body, 0)?;
    seal(&file)?;
    Ok(file)
}

/// Writes all of `bytes` at `offset` of a memory file.
pub(crate) fn write_all_at(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = rustix::io::pwrite(file, bytes, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
        offset += count as u64;
    }
    Ok(())
}

/// One end of a connection between two processes.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    /// Two connected ends. Neither survives an exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self { descriptor: a }, Self { descriptor: b }))
    }

    pub(crate) const fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }

    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    /// Sends a message, waiting for room.
    pub(crate) fn send(&self, packet: &Packet) -> io::Result<()> {
        self.send_with(packet, SendFlags::NOSIGNAL)
    }

    /// Sends a message if there is room; else fails with [`io::ErrorKind::WouldBlock`].
    pub(crate) fn try_send(&self, packet: &Packet) -> io::Result<()> {
        self.send_with(packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with(&self, packet: &Packet, flags: SendFlags) -> io::Result<()> {
        let borrowed: Vec<BorrowedFd<'_>> = packet.descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
        }
        loop {
            match sendmsg(&self.descriptor, &[IoSlice::new(&packet.bytes)], &mut ancillary, flags) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message, waiting for one; `None` when the other end is closed.
    pub(crate) fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Option<Message>> {
        self.receive_with(buffer, RecvFlags::empty())
    }

    /// Receives a message if there is one; else fails with [`io::ErrorKind::WouldBlock`].
    pub(crate) fn try_receive(&self, buffer: &mut Vec<u8>) -> io::Result<Option<Message>> {
        self.receive_with(buffer, RecvFlags::DONTWAIT)
    }

    fn receive_with(&self, buffer: &mut Vec<u8>, flags: RecvFlags) -> io::Result<Option<Message>> {
        buffer.resize(PACKET_BODY + 2, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = loop {
            match recvmsg(&self.descriptor, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
                Err(rustix::io::Errno::INTR) => {}
                // The other end died with messages of ours unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(invalid("message or its descriptors were cut"));
        }
        open_body(buffer.get(..received.bytes).unwrap_or_default(), descriptors).map(Some)
    }
}

/// Takes a packet apart, and reads the body from its file if it is in one.
fn open_body(packet: &[u8], mut descriptors: Vec<OwnedFd>) -> io::Result<Message> {
    let [kind, flags, inline @ ..] = packet else { return Err(invalid("message without a kind")) };
    let body = if *flags & BODY_IN_FILE == 0 {
        inline.to_vec()
    } else {
        let file = descriptors.pop().ok_or_else(|| invalid("message without its body"))?;
        // Sealed, so that reading it cannot fault even if the sender is hostile.
        let file = PartitionFile::from_sealed(file)?;
        if file.size().0 > BODY_MAX {
            return Err(invalid("message body is too long"));
        }
        file.map()?.to_vec()
    };
    Ok(Message { kind: *kind, body, descriptors })
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_arrives_whole() {
        let (a, b) = Socket::pair().unwrap();
        let body = vec![9; PACKET_BODY + 1];
        a.send(&Packet::new(3, &body, Vec::new()).unwrap()).unwrap();
        let message = b.receive(&mut Vec::new()).unwrap().unwrap();
        assert_eq!((message.kind, message.body, message.descriptors.len()), (3, body, 0));
    }

    #[test]
    fn descriptors_arrive_in_order() {
        let (a, b) = Socket::pair().unwrap();
        let files: Vec<_> = (1_u8..=3).map(|n| body_file(&vec![n; n as usize]).unwrap()).collect();
        a.send(&Packet::new(1, b"x", files).unwrap()).unwrap();
        let message = b.receive(&mut Vec::new()).unwrap().unwrap();
        let sizes: Vec<_> =
            message.descriptors.into_iter().map(|fd| PartitionFile::from_sealed(fd).unwrap().size().0).collect();
        assert_eq!(sizes, [1, 2, 3]);
    }

    #[test]
    fn a_body_file_that_can_still_shrink_is_refused() {
        let (a, b) = Socket::pair().unwrap();
        let file = memory_file("open").unwrap();
        let packet = Packet { bytes: vec![1, BODY_IN_FILE], descriptors: vec![file] };
        a.send(&packet).unwrap();
        assert_eq!(b.receive(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn garbage_is_an_error_and_the_end_is_none() {
        let (a, b) = Socket::pair().unwrap();
        for bytes in [vec![7], vec![1, BODY_IN_FILE], vec![0; PACKET_BODY + 3]] {
            a.send(&Packet { bytes, descriptors: Vec::new() }).unwrap();
            assert!(b.receive(&mut Vec::new()).is_err());
        }
        drop(a);
        assert!(b.receive(&mut Vec::new()).unwrap().is_none());
    }
}
