//! Which living processes belong to a launch of ours, found and signalled without ever meeting a stranger.
//!
//! Every look at the process table is by number, and a number may go to somebody else between any two steps. So each step follows the
//! same order: open a handle, look at what has the number, and look at the handle again. A handle that has not exited after the look
//! held the number throughout, so what was seen is the process that the handle means. Signals go through the handle.

use std::io;

use super::record::{LaunchSign, OwnershipRecord, ProcessIdentity};
use super::table::{Kind, ProcessTable};

/// What all processes of a launch have in common.
#[derive(Clone, Debug)]
pub(crate) struct Lineage {
    /// The process that was started; it leads the group that its descendants are born into.
    pub(crate) leader: u32,
    /// When the launch began: nothing older belongs to it.
    pub(crate) started: u64,
    pub(crate) sign: LaunchSign,
}

/// One living process of a launch.
pub(crate) struct Member<H> {
    pub(crate) pid: u32,
    pub(crate) handle: H,
}

impl Lineage {
    /// The lineage of a recorded launch that `leader` now leads. It may be younger than the others: the one who serves where the launcher
    /// that started all of them is gone.
    pub(crate) fn led_by(leader: u32, record: &OwnershipRecord) -> Self {
        Self {
            leader,
            started: record.leader.as_ref().map_or(0, |first| first.started),
            sign: record.sign.clone(),
        }
    }

    /// The living processes of this launch without its leader: those that carry its sign, and those in its group as long as
    /// `holds_number` says that the leader's number, which is the group's too, cannot be anybody else's.
    ///
    /// A descendant that cleaned its environment *and* left the group is not found: nothing ties it to us any more.
    pub(crate) fn others<T: ProcessTable>(
        &self,
        table: &T,
        holds_number: impl Fn() -> bool,
    ) -> io::Result<Vec<Member<T::Handle>>> {
        let mut members = Vec::new();
        for pid in table.pids()? {
            // Once the leader is gone, even one of its own descendants may have been given its number.
            if !self.may_be(table, pid) || (pid == self.leader && holds_number()) {
                continue;
            }
            let Some(handle) = table.open(pid)? else {
                continue;
            };
            let in_group = table
                .look(pid)
                .is_some_and(|seen| seen.group == self.leader);
            let belongs = table.bears(pid, &self.sign) || (in_group && holds_number());
            if belongs && !table.has_exited(&handle) {
                members.push(Member { pid, handle });
            }
        }
        Ok(members)
    }

    /// A first, cheap look that spares the others a handle.
    fn may_be<T: ProcessTable>(&self, table: &T, pid: u32) -> bool {
        table
            .look(pid)
            .is_some_and(|seen| !seen.zombie && seen.started >= self.started)
    }

    /// Kills every living process of this launch but its leader; gives those that it found. A process that was forked meanwhile is
    /// found by the next call.
    pub(crate) fn force_others<T: ProcessTable>(
        &self,
        table: &T,
        holds_number: impl Fn() -> bool,
    ) -> io::Result<Vec<u32>> {
        let members = self.others(table, holds_number)?;
        for member in &members {
            table.signal(&member.handle, Kind::Force)?;
        }
        Ok(members.iter().map(|member| member.pid).collect())
    }
}

/// A process of an earlier launch that is proved to be ours.
pub(crate) struct Proved<H> {
    pub(crate) identity: ProcessIdentity,
    pub(crate) handle: H,
}

/// What is left of a recorded launch.
pub(crate) enum Remains<H> {
    /// Nothing.
    Nothing,
    /// The process that was started, or the one that serves in its place.
    Leader(Proved<H>),
    /// Some of its descendants, and nobody who leads them.
    Leftovers(Vec<Member<H>>),
    /// The process that was started lives and does not carry our sign, so it is not touched.
    Doubtful(ProcessIdentity),
}

/// Compares the record of a launch with the process table of this machine.
///
/// `boot` is this run of the machine, and `serving` whoever listens on the launch's port now: where a launcher started the real gateway
/// and died, that one takes its place if it carries the sign.
pub(crate) fn remains_of<T: ProcessTable>(
    table: &T,
    record: &OwnershipRecord,
    boot: &str,
    serving: Option<u32>,
) -> io::Result<Remains<T::Handle>> {
    if record.boot != boot {
        return Ok(Remains::Nothing);
    }
    if let Some(leader) = &record.leader {
        match identify(table, leader.pid, Some(leader.started), &record.sign)? {
            Identity::Ours(proved) => return Ok(Remains::Leader(proved)),
            Identity::Unsigned(identity) => return Ok(Remains::Doubtful(identity)),
            Identity::Gone => {}
        }
    }
    if let Some(serving) = serving
        && let Identity::Ours(proved) = identify(table, serving, None, &record.sign)?
    {
        return Ok(Remains::Leader(proved));
    }
    // Nobody leads them: none is left out.
    let lineage = Lineage::led_by(0, record);
    let mut left = lineage.others(table, || false)?;
    if record.leader.is_none() {
        // Its owner died before it could write down whom it had started: whoever carries the sign for the longest time.
        let mut oldest: Option<Proved<T::Handle>> = None;
        for member in &left {
            if let Identity::Ours(proved) = identify(table, member.pid, None, &record.sign)?
                && oldest
                    .as_ref()
                    .is_none_or(|oldest| proved.identity.started < oldest.identity.started)
            {
                oldest = Some(proved);
            }
        }
        if let Some(proved) = oldest {
            return Ok(Remains::Leader(proved));
        }
        left.clear();
    }
    Ok(if left.is_empty() {
        Remains::Nothing
    } else {
        Remains::Leftovers(left)
    })
}

enum Identity<H> {
    /// Nobody has the number, or somebody else.
    Gone,
    Ours(Proved<H>),
    Unsigned(ProcessIdentity),
}

/// Who has a number, asked in the order that rules out a change of hands.
fn identify<T: ProcessTable>(
    table: &T,
    pid: u32,
    started: Option<u64>,
    sign: &LaunchSign,
) -> io::Result<Identity<T::Handle>> {
    let Some(handle) = table.open(pid)? else {
        return Ok(Identity::Gone);
    };
    let Some(seen) = table.look(pid) else {
        return Ok(Identity::Gone);
    };
    let signed = table.bears(pid, sign);
    let identity = ProcessIdentity {
        pid,
        started: seen.started,
        executable: table.executable(pid),
    };
    let other = started.is_some_and(|started| started != seen.started);
    if other || seen.zombie || table.has_exited(&handle) {
        return Ok(Identity::Gone);
    }
    Ok(if signed {
        Identity::Ours(Proved { identity, handle })
    } else {
        Identity::Unsigned(identity)
    })
}
