//! The drawing of the machine in ARCHITECTURE.md, made by walking through it: which phase follows which, on what, and what is asked
//! for on the way. The test fails when the drawing is not what the code does; with `GATEWAY_DRAW=1` it is drawn anew.

#[allow(
    dead_code,
    reason = "the model checker uses the whole of it, this test a part"
)]
mod world;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{Debug, Write as _};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;

use gateway_policy::lifecycle::AttachMode;
use gateway_policy::{Effect, Input, JournalEntry, Phase, Trigger};

use world::{Bounds, World};

const BEGIN: &str = "<!-- drawn by gateway-policy/tests/drawing.rs -->";
const END: &str = "<!-- end of the drawing -->";

/// The name of a variant.
fn name(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|letter: char| !letter.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

fn trigger_name(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Timeout => "deadline".to_owned(),
        Trigger::Input(Input::Observed { observation, .. }) => name(observation),
        Trigger::Input(command) => name(command),
    }
}

/// What was seen of the machine.
#[derive(Default)]
struct Drawing {
    /// From phase to phase, and on what.
    edges: BTreeMap<(Place, Place), BTreeSet<String>>,
    /// What is asked for after which input.
    asks: BTreeMap<String, BTreeSet<String>>,
    rules: BTreeMap<String, BTreeSet<String>>,
}

/// A phase in the order of its declaration.
type Place = (u8, &'static str);

const ORDER: [Phase; 18] = [
    Phase::Stopped,
    Phase::Discovering,
    Phase::Preparing,
    Phase::Spawning,
    Phase::Listening,
    Phase::Handshaking,
    Phase::StartingUp,
    Phase::Ready,
    Phase::Restarting,
    Phase::BackingOff,
    Phase::WaitingForHolder,
    Phase::AwaitingApproval,
    Phase::Repairing,
    Phase::Draining,
    Phase::Stopping,
    Phase::GaveUp,
    Phase::Failed,
    Phase::Stopped,
];

fn place(phase: Phase) -> Place {
    let at = ORDER.iter().position(|known| *known == phase);
    (
        u8::try_from(at.expect("every phase is listed")).unwrap(),
        phase.name(),
    )
}

impl Drawing {
    /// Walks through every state of a bounded world.
    fn walk(&mut self, bounds: Bounds, commands: [u8; 2]) {
        let mut seen = HashSet::new();
        let mut ahead = vec![World::new(&bounds)];
        ahead[0].commands_left = commands;
        while let Some(world) = ahead.pop() {
            for act in bounds.actions(&world) {
                let from = world.machine.status().phase;
                let Some(next) = world.clone().perform(act) else {
                    continue;
                };
                if let Some(entry) = &next.newest {
                    self.see(from, entry, next.machine.status().phase);
                }
                let mut hasher = DefaultHasher::new();
                next.hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    ahead.push(next);
                }
            }
        }
    }

    fn see(&mut self, from: Phase, entry: &JournalEntry, to: Phase) {
        let trigger = trigger_name(&entry.trigger);
        if from != to {
            let edge = self.edges.entry((place(from), place(to))).or_default();
            edge.insert(trigger.clone());
        }
        let told = |effect: &&Effect| {
            !matches!(
                effect,
                Effect::PublishStatus(_) | Effect::IgnoredStale { .. }
            )
        };
        let asked = entry.effects.iter().filter(told).map(name);
        self.asks.entry(trigger.clone()).or_default().extend(asked);
        let rules = entry.rules.iter().map(|rule| rule.name().to_owned());
        self.rules.entry(trigger).or_default().extend(rules);
    }

    fn render(&self) -> String {
        let mut text = String::new();
        text.push_str("```mermaid\nstateDiagram-v2\n    [*] --> stopped\n");
        for ((from, to), triggers) in &self.edges {
            // From everywhere, and for the same reason: said in words.
            if to.1 == "stopping" {
                continue;
            }
            let triggers: Vec<&str> = triggers.iter().map(String::as_str).collect();
            let _ = writeln!(
                text,
                "    {} --> {}: {}",
                id(from.1),
                id(to.1),
                triggers.join(", ")
            );
        }
        text.push_str(
            "```\n\n| input | effects that may follow | rules that may fire |\n|---|---|---|\n",
        );
        for (trigger, effects) in &self.asks {
            let effects: Vec<&str> = effects.iter().map(String::as_str).collect();
            let rules: Vec<&str> = self.rules[trigger].iter().map(String::as_str).collect();
            let _ = writeln!(
                text,
                "| {trigger} | {} | {} |",
                effects.join(", "),
                rules.join(", ")
            );
        }
        text
    }
}

/// Mermaid takes no hyphens in names.
fn id(phase: &str) -> String {
    phase.replace('-', "_")
}

#[test]
fn the_drawing_shows_what_the_code_does() {
    let mut drawing = Drawing::default();
    for attach in [AttachMode::Never, AttachMode::IfPresent, AttachMode::Only] {
        // One user and two faults, or two users and one: the rest adds states, and nothing to the drawing.
        for (commands, faults) in [([1, 0], 2), ([1, 1], 1)] {
            let bounds = Bounds {
                attach,
                commands: 1,
                faults,
            };
            drawing.walk(bounds, commands);
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("the place of the drawing begins");
    let (drawn, after) = rest.split_once(END).expect("the place of the drawing ends");
    let expected = format!("\n{}", drawing.render());
    if std::env::var_os("GATEWAY_DRAW").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(
            drawn == expected,
            "ARCHITECTURE.md does not show the machine as it is; draw it anew with GATEWAY_DRAW=1 cargo test -p gateway-policy --test drawing\n{expected}"
        );
    }
}
