//! From a seed to a story, and from a story that fails to a short one that fails as well.

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use gateway_policy::lifecycle::Rule;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::play::{Account, play_alone};
use crate::story::{Story, story};

/// The story of a seed, with what is needed to reduce it.
fn story_of(seed: u64) -> (TestRunner, impl ValueTree<Value = Story>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tree = story().new_tree(&mut runner).expect("no story is rejected");
    (runner, tree)
}

/// Plays the story of a seed and gives the names of the rules that it led to; one that fails is reduced.
fn play(seed: u64) -> Result<BTreeSet<&'static str>, TestError<Story>> {
    let (mut runner, tree) = story_of(seed);
    let reached = Mutex::new(BTreeSet::new());
    let played = runner.run_one(tree, |story| {
        let account = play_alone(&story, false);
        let rules = account.moves.iter().flat_map(|entry| &entry.rules);
        reached.lock().unwrap().extend(rules.map(Rule::name));
        Ok(())
    });
    played.map(|_| reached.into_inner().unwrap())
}

/// Plays the stories of many seeds, on as many threads as there are processors; each story has a runtime and a clock of its own.
/// Gives the names of the rules that they led to.
pub(crate) fn play_all(seeds: Range<u64>) -> BTreeSet<&'static str> {
    let next = AtomicU64::new(seeds.start);
    let reached = Mutex::new(BTreeSet::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return None;
            }
            match play(seed) {
                Ok(rules) => reached.lock().unwrap().extend(rules),
                Err(error) => {
                    // One story is enough to read; the other threads finish theirs.
                    next.store(seeds.end, Ordering::Relaxed);
                    return Some((seed, error.to_string()));
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let failed = thread::scope(|scope| {
        let players: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let failed = players
            .into_iter()
            .filter_map(|player| player.join().unwrap());
        failed.min()
    });
    if let Some((seed, error)) = failed {
        panic!("seed {seed}: {error}\nreplay it with: cargo xtask sim --seed {seed}");
    }
    reached.into_inner().unwrap()
}

/// Tells the story of a seed line by line; and when it fails, the short story that fails as well.
pub(crate) fn tell(seed: u64) {
    let (_, tree) = story_of(seed);
    let told = tree.current();
    println!("{told:#?}");
    if catch_unwind(AssertUnwindSafe(|| play_alone(&told, true))).is_ok() {
        return;
    }
    println!("\nIt fails. A shorter one that fails as well:\n");
    match play(seed) {
        Err(TestError::Fail(reason, short)) => {
            println!("\n{short:#?}");
            play_alone(&short, true);
            panic!("seed {seed} failed once and not again: {reason}");
        }
        other => panic!("seed {seed} failed once and not again: {other:?}"),
    }
}

/// Plays the story of a seed twice and compares.
pub(crate) fn assert_repeats(seed: u64) {
    let (_, tree) = story_of(seed);
    let story = tree.current();
    let (first, second) = (play_alone(&story, false), play_alone(&story, false));
    let lines = |account: &Account| {
        let records = account.records.iter().map(|record| format!("{record:?}"));
        let moves = account.moves.iter().map(|entry| format!("{entry:?}"));
        let answers = account.answers.iter().map(|answer| format!("{answer:?}"));
        records.chain(moves).chain(answers).collect::<Vec<_>>()
    };
    let (first, second) = (lines(&first), lines(&second));
    if let Some(at) =
        (0..first.len().max(second.len())).find(|at| first.get(*at) != second.get(*at))
    {
        panic!(
            "seed {seed} is two stories; in line {at} the one says\n{:#?}\nand the other\n{:#?}\n{story:#?}",
            first.get(at),
            second.get(at)
        );
    }
}
