//! Thousands of random histories of a machine with few process numbers, so that every number changes hands all the time: launches, forks,
//! daemons, launchers that die, strangers, two managers that crash at any moment, and reboots. A log of every signal shows whom it hit.
//!
//! Between any two looks at the process table anything may happen. What the simulation cannot show is whether the real table behaves like
//! this one; that is what the tests with real processes are for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::lineage::{Lineage, Remains, remains_of};
use super::record::{
    LaunchFingerprint, LaunchSign, OwnershipRecord, ProcessIdentity, RECORD_VERSION,
};
use super::table::{Kind, ProcessTable, Sighting};

const NUMBERS: std::ops::RangeInclusive<u32> = 2..=15;
const RUNS: u64 = 10_000;
const STEPS: u32 = 40;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

#[derive(Clone, Debug)]
struct Process {
    /// Never given twice.
    name: u64,
    started: u64,
    group: u32,
    sign: Option<LaunchSign>,
    /// The truth that ownership has to find out: whether it descends from a launch of ours.
    ours: bool,
    zombie: bool,
    /// Its parent is a living manager: when it ends it stays as a zombie until it is collected.
    held: bool,
}

struct World {
    random: Random,
    processes: BTreeMap<u32, Process>,
    names: u64,
    ticks: u64,
    boot: u32,
    stirring: bool,
    signals: u64,
    /// Signals to processes that descend from no launch of ours.
    strangers_hit: Vec<Process>,
    number_reused: u64,
    last_name_of: BTreeMap<u32, u64>,
}

impl World {
    /// A number that is neither a process's nor a group's.
    fn free_number(&mut self) -> Option<u32> {
        let free: Vec<u32> = NUMBERS
            .filter(|number| {
                !self
                    .processes
                    .iter()
                    .any(|(pid, process)| pid == number || process.group == *number)
            })
            .collect();
        if free.is_empty() {
            return None;
        }
        let chosen = self.random.below(free.len() as u64);
        Some(free[usize::try_from(chosen).unwrap()])
    }

    fn add(&mut self, mut process: Process, group: Option<u32>) -> Option<u32> {
        let pid = self.free_number()?;
        self.names += 1;
        // Several processes may start in one tick.
        self.ticks += self.random.below(2);
        process.name = self.names;
        process.started = self.ticks;
        process.group = group.unwrap_or(pid);
        if self.last_name_of.insert(pid, process.name).is_some() {
            self.number_reused += 1;
        }
        self.processes.insert(pid, process);
        Some(pid)
    }

    fn end(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else {
            return;
        };
        if process.held {
            process.zombie = true;
        } else {
            self.processes.remove(&pid);
        }
    }

    fn any(&mut self) -> Option<u32> {
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        let chosen = self.random.below(pids.len().max(1) as u64);
        pids.get(usize::try_from(chosen).unwrap()).copied()
    }

    /// What others do meanwhile.
    fn stir(&mut self) {
        if !self.stirring {
            return;
        }
        for _ in 0..self.random.below(3) {
            let event = self.random.below(10);
            let Some(pid) = self.any() else {
                self.stranger();
                continue;
            };
            let process = self.processes[&pid].clone();
            match event {
                0..=3 => self.end(pid),
                4 | 5 => self.stranger(),
                _ if process.zombie => {}
                // A child in the same group, a daemon, or a program with a clean environment in a session of its own.
                6 | 7 => {
                    let group = process.group;
                    self.add(
                        Process {
                            held: false,
                            ..process
                        },
                        Some(group),
                    );
                }
                8 => {
                    self.add(
                        Process {
                            held: false,
                            ..process
                        },
                        None,
                    );
                }
                _ => {
                    self.add(
                        Process {
                            held: false,
                            sign: None,
                            ..process
                        },
                        None,
                    );
                }
            }
        }
    }

    fn stranger(&mut self) {
        let sign = self.random.one_in(2).then(|| {
            let number = self.random.next();
            LaunchSign::of(&format!("somebody else's {number}"))
        });
        self.add(
            Process {
                name: 0,
                started: 0,
                group: 0,
                sign,
                ours: false,
                zombie: false,
                held: false,
            },
            None,
        );
    }

    fn hit(&mut self, pid: u32) {
        self.signals += 1;
        let process = self.processes[&pid].clone();
        if !process.ours {
            self.strangers_hit.push(process);
        }
        self.end(pid);
    }
}

struct Table(RefCell<World>);

impl Table {
    fn stirred(&self) -> std::cell::RefMut<'_, World> {
        let mut world = self.0.borrow_mut();
        world.stir();
        world
    }

    fn still(&self, quiet: bool) {
        self.0.borrow_mut().stirring = !quiet;
    }

    fn living(&self, sign: &LaunchSign) -> usize {
        let world = self.0.borrow();
        world
            .processes
            .values()
            .filter(|process| !process.zombie && process.sign.as_ref() == Some(sign))
            .count()
    }
}

impl ProcessTable for Table {
    /// The process's name.
    type Handle = u64;

    fn pids(&self) -> io::Result<Vec<u32>> {
        Ok(self.stirred().processes.keys().copied().collect())
    }

    fn open(&self, pid: u32) -> io::Result<Option<u64>> {
        Ok(self
            .stirred()
            .processes
            .get(&pid)
            .map(|process| process.name))
    }

    fn look(&self, pid: u32) -> Option<Sighting> {
        self.stirred().processes.get(&pid).map(|process| Sighting {
            started: process.started,
            group: process.group,
            zombie: process.zombie,
        })
    }

    fn bears(&self, pid: u32, sign: &LaunchSign) -> bool {
        self.stirred()
            .processes
            .get(&pid)
            .is_some_and(|process| process.sign.as_ref() == Some(sign))
    }

    fn executable(&self, _pid: u32) -> Option<PathBuf> {
        None
    }

    fn has_exited(&self, handle: &u64) -> bool {
        !self
            .stirred()
            .processes
            .values()
            .any(|process| process.name == *handle && !process.zombie)
    }

    fn signal(&self, handle: &u64, _kind: Kind) -> io::Result<()> {
        let mut world = self.stirred();
        let found = world
            .processes
            .iter()
            .find(|(_, process)| process.name == *handle && !process.zombie)
            .map(|(pid, _)| *pid);
        if let Some(pid) = found {
            world.hit(pid);
        }
        Ok(())
    }
}

/// The instance: what outlasts its managers.
#[derive(Default)]
struct Instance {
    record: Option<OwnershipRecord>,
    claimed_by: Option<u32>,
    launches: u64,
}

/// What the manager that has the claim holds.
enum Held {
    Nothing,
    Child { pid: u32, lineage: Lineage },
    Survivor { handle: u64, lineage: Lineage },
}

struct Run<'a> {
    table: &'a Table,
    instance: Instance,
    held: Held,
    adopted: u64,
    swept: u64,
}

impl Run<'_> {
    fn boot(&self) -> String {
        self.table.0.borrow().boot.to_string()
    }

    fn dice(&self, end: u64) -> u64 {
        self.table.0.borrow_mut().random.below(end)
    }

    /// One manager has the claim from here on; the other one cannot get it.
    fn claim(&mut self, manager: u32) {
        if self.instance.claimed_by.is_some() {
            return;
        }
        self.instance.claimed_by = Some(manager);
        let Some(record) = self.instance.record.clone() else {
            return;
        };
        let serving = self.table.0.borrow_mut().any();
        match remains_of(self.table, &record, &self.boot(), serving).unwrap() {
            Remains::Leader(proved) => {
                self.adopted += 1;
                let lineage = Lineage::led_by(proved.identity.pid, &record);
                self.held = Held::Survivor {
                    handle: proved.handle,
                    lineage,
                };
            }
            Remains::Leftovers(members) => {
                self.swept += 1;
                for member in members {
                    self.table.signal(&member.handle, Kind::Force).unwrap();
                }
                self.instance.record = None;
            }
            Remains::Nothing | Remains::Doubtful(_) => self.instance.record = None,
        }
    }

    /// `false` when the manager crashed on the way.
    fn launch(&mut self) -> bool {
        self.instance.launches += 1;
        let sign = LaunchSign::of(&format!("launch {}", self.instance.launches));
        let mut record = OwnershipRecord {
            version: RECORD_VERSION,
            sign: sign.clone(),
            boot: self.boot(),
            leader: None,
            fingerprint: LaunchFingerprint(String::new()),
            port: None,
            survives: true,
        };
        self.instance.record = Some(record.clone());
        if self.dice(12) == 0 {
            return false;
        }
        let child = Process {
            name: 0,
            started: 0,
            group: 0,
            sign: Some(sign.clone()),
            ours: true,
            zombie: false,
            held: true,
        };
        let Some(pid) = self.table.0.borrow_mut().add(child, None) else {
            self.instance.record = None;
            return true;
        };
        let started = self.table.0.borrow().processes[&pid].started;
        let lineage = Lineage {
            leader: pid,
            started,
            sign,
        };
        self.held = Held::Child { pid, lineage };
        if self.dice(12) == 0 {
            return false;
        }
        record.leader = Some(ProcessIdentity {
            pid,
            started,
            executable: None,
        });
        self.instance.record = Some(record);
        true
    }

    /// Killed without a chance to do anything.
    fn crash(&mut self) {
        if let Held::Child { pid, .. } = self.held {
            let mut world = self.table.0.borrow_mut();
            if let Some(process) = world.processes.get_mut(&pid) {
                // Somebody who collects at once is its parent now.
                process.held = false;
                if process.zombie {
                    world.processes.remove(&pid);
                } else if world.random.one_in(2) {
                    world.end(pid);
                }
            }
        }
        self.held = Held::Nothing;
        self.instance.claimed_by = None;
    }

    /// As the owner of a real child does it: kill, sweep while the number is held, collect, and sweep until nothing is found.
    fn end(&mut self) {
        let lineage = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => return,
            Held::Child { pid, lineage } => {
                lineage.force_others(self.table, || true).unwrap();
                {
                    // The group at once, by number: the leader is not collected yet.
                    let mut world = self.table.0.borrow_mut();
                    let group: Vec<u32> = world
                        .processes
                        .iter()
                        .filter(|(_, process)| process.group == pid && !process.zombie)
                        .map(|(pid, _)| *pid)
                        .collect();
                    for member in group {
                        world.hit(member);
                    }
                }
                lineage.force_others(self.table, || true).unwrap();
                let mut world = self.table.0.borrow_mut();
                assert!(world.processes[&pid].zombie, "nobody else collects it");
                world.processes.remove(&pid);
                lineage
            }
            Held::Survivor { handle, lineage } => {
                let vouches = || !self.table.has_exited(&handle);
                lineage.force_others(self.table, vouches).unwrap();
                self.table.signal(&handle, Kind::Force).unwrap();
                lineage
            }
        };
        // While others fork, one sweep is never the last; when they pause it is.
        lineage.force_others(self.table, || false).unwrap();
        self.table.still(true);
        lineage.force_others(self.table, || false).unwrap();
        assert_eq!(self.table.living(&lineage.sign), 0, "{lineage:?}");
        self.table.still(false);
        self.instance.record = None;
    }

    fn reboot(&mut self) {
        let mut world = self.table.0.borrow_mut();
        world.processes.clear();
        world.boot += 1;
        world.ticks = 0;
        drop(world);
        self.held = Held::Nothing;
        self.instance.claimed_by = None;
    }

    fn step(&mut self) {
        let manager = u32::try_from(self.dice(2)).unwrap();
        if self.instance.claimed_by.is_none() {
            return self.claim(manager);
        }
        match (self.dice(20), &self.held) {
            (0, _) => self.reboot(),
            (1..=3, _) => self.crash(),
            (4..=7, Held::Child { .. } | Held::Survivor { .. }) => self.end(),
            (4..=12, Held::Nothing) if self.instance.record.is_none() => {
                if !self.launch() {
                    self.crash();
                }
            }
            // The one without the claim tries, and does nothing.
            (13, _) => self.claim(1 - self.instance.claimed_by.unwrap_or_default()),
            _ => self.table.0.borrow_mut().stir(),
        }
    }
}

#[test]
fn no_signal_ever_reaches_a_stranger() {
    let (mut signals, mut reused, mut adopted, mut swept) = (0, 0, 0, 0);
    for seed in 0..RUNS {
        let table = Table(RefCell::new(World {
            random: Random(seed),
            processes: BTreeMap::new(),
            names: 0,
            ticks: 0,
            boot: 0,
            stirring: true,
            signals: 0,
            strangers_hit: Vec::new(),
            number_reused: 0,
            last_name_of: BTreeMap::new(),
        }));
        let mut run = Run {
            table: &table,
            instance: Instance::default(),
            held: Held::Nothing,
            adopted: 0,
            swept: 0,
        };
        for _ in 0..STEPS {
            run.step();
        }
        adopted += run.adopted;
        swept += run.swept;
        let world = table.0.borrow();
        assert!(
            world.strangers_hit.is_empty(),
            "seed {seed}: {:?}",
            world.strangers_hit
        );
        signals += world.signals;
        reused += world.number_reused;
    }
    println!(
        "{RUNS} runs: {signals} signals, {reused} numbers given again, {adopted} survivors taken over, {swept} times leftovers"
    );
    // A history in which nothing happens shows nothing.
    assert!(signals > RUNS && reused > RUNS && adopted > RUNS / 10 && swept > RUNS / 100);
}
