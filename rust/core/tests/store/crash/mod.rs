//! A node's files through seeded lives: random acts, a fault at a random file operation, a loss, another fault while
//! opening, and on. Afterwards every block, key and checkpoint that was acknowledged is there, every root recomputes,
//! every state database is followed to the right root, and no key stream was used twice.
//!
//! `EHRFAST_SEEDS=n` runs that many seeds instead of 1,000, `EHRFAST_SEED=n` replays one.

mod acts;
mod pairs;
mod streams;
mod world;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ehrfast_core::store::files::{Dice, Fault, Loss, MemoryFiles, Operation};

use acts::Act;
use streams::Streams;
use world::World;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const FAULTS: [Fault; 4] = [Fault::Crash, Fault::CrashInside, Fault::Errno(EIO), Fault::Errno(ENOSPC)];
/// How many seeds also put the state database on a real disk.
const SEEDS_A_REAL_DATABASE: u64 = 40;

/// What a fault met: the act, and the file operation inside it.
type Met = BTreeSet<(Act, Operation)>;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Says which seed it was when the thread panics.
struct Named(&'static str, u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Named(test, seed) = self;
            eprintln!("seed {seed} failed: EHRFAST_SEED={seed} cargo test -p ehrfast-core --test suite {test}");
        }
    }
}

fn loss(dice: &mut Dice) -> Loss {
    match dice.below(6) {
        0 => Loss::Nothing,
        1 => Loss::Unsynced,
        _ => Loss::Seeded(dice.draw()),
    }
}

/// A few acts under a planned fault; gives whether one failed.
fn acts(world: &mut World, dice: &mut Dice, count: u64, met: &mut Met) -> bool {
    for _ in 0..count {
        let act = Act::pick(dice);
        if act.run(world, dice).is_err() {
            met.extend(world.disk().met().map(|operation| (act, operation)));
            world.after_failure(dice);
            return true;
        }
    }
    false
}

/// Starts the machine again until the node opens: more faults may meet the opening itself.
fn recover(world: &mut World, dice: &mut Dice, met: &mut Met) {
    let mut faults = dice.below(4);
    // Often only the process ends, with the cache left as it is.
    world.restart(if dice.below(3) == 0 { Loss::Nothing } else { loss(dice) });
    loop {
        faults = faults.saturating_sub(1);
        match dice.below(3) {
            _ if faults == 0 => {}
            0 => world.disk().fail_read_at(dice.below(20), EIO),
            _ => world.disk().fail_at(
                dice.below(if world.model.blocks.is_empty() { 18 } else { 10 }),
                FAULTS[dice.below(4) as usize],
            ),
        }
        match world.open() {
            Ok(()) => break,
            Err(error) => {
                assert!(faults > 0, "without a fault the node does not open: {error:?}");
                met.extend(world.disk().met().map(|operation| (Act::Open, operation)));
                world.restart(loss(dice));
            }
        }
    }
    world.disk().fail_at(u64::MAX, Fault::Crash);
    world.disk().fail_read_at(u64::MAX, EIO);
    world.settle();
    world.check_durable();
}

fn life(seed: u64, met: &mut Met) {
    let mut dice = Dice::new(seed);
    let disk = MemoryFiles::seeded(dice.draw());
    let mut world = World::new(disk, &mut dice);
    let mut copy = None;
    for _ in 0..2 + dice.below(3) {
        if dice.below(4) > 0 {
            let at = world.disk().operations() + dice.below(45);
            world.disk().fail_at(at, FAULTS[dice.below(4) as usize]);
        }
        let count = 2 + dice.below(9);
        if dice.below(4) == 0 {
            copy = Some(world.copied());
        }
        if world.is_open() || world.open().is_ok() {
            acts(&mut world, &mut dice, count, met);
        }
        recover(&mut world, &mut dice, met);
        world.check(&mut dice);
    }
    world.disk().fail_at(u64::MAX, Fault::Crash);
    acts(&mut world, &mut dice, 3, met);
    world.restart(Loss::Unsynced);
    world.open().unwrap();
    world.settle();
    world.check(&mut dice);
    pairs::every_pair(&world, &mut dice);
    let mut streams = Streams::default();
    if seed.is_multiple_of(SEEDS_A_REAL_DATABASE) {
        pairs::on_disk(&world, &mut dice, &mut streams);
    }
    // An older copy goes its own way under the same keys.
    if let Some(mut copy) = copy {
        recover(&mut copy, &mut dice, met);
        acts(&mut copy, &mut dice, 4, met);
        copy.restart(Loss::Unsynced);
        copy.open().unwrap();
        copy.settle();
        copy.check(&mut dice);
    }
    let reused = streams.read(&world.disk().written());
    assert_eq!(reused, 0, "a key stream was used for two messages");
    let [blocks, keys] = [world.model.blocks.len(), world.model.keys.held.len()];
    assert!(streams.slots > 0 && streams.sections >= 6 * blocks && streams.records >= keys.min(1));
}

#[test]
fn nothing_acknowledged_is_lost_in_any_life() {
    if let Some(seed) = number("EHRFAST_SEED") {
        let _named = Named("store::crash::nothing_acknowledged_is_lost_in_any_life", seed);
        return life(seed, &mut Met::new());
    }
    let seeds = number("EHRFAST_SEEDS").unwrap_or(1_000);
    let (next, met) = (AtomicU64::new(0), Mutex::new(Met::new()));
    let work = || {
        let mut here = Met::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            let _named = Named("store::crash::nothing_acknowledged_is_lost_in_any_life", seed);
            life(seed, &mut here);
        }
        met.lock().unwrap().extend(here);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    let met = met.into_inner().unwrap();
    let missed: Vec<_> = acts::EXPECTED.iter().filter(|expected| !met.contains(*expected)).collect();
    assert!(seeds < 1_000 || missed.is_empty(), "no fault met {missed:?}");
}

/// One life of fixed acts, over and over: each of its file operations meets each fault.
#[test]
fn every_operation_gets_its_turn() {
    let script = [
        Act::Append,
        Act::Put,
        Act::Append,
        Act::Checkpoint,
        Act::Append,
        Act::Rewrite,
        Act::Put,
        Act::Forget,
        Act::Append,
    ];
    let mut operations = 0;
    'operations: for operation in 0.. {
        for (number, fault) in (0..).zip(FAULTS) {
            let (mut dice, mut script_dice) = (Dice::new(operation * 4 + number), Dice::new(1));
            let mut world = World::small(MemoryFiles::seeded(operation));
            world.disk().fail_at(operation, fault);
            let opened = world.open();
            let failed = opened.is_err()
                || script.iter().chain(&script).any(|act| {
                    let failed = act.run(&mut world, &mut script_dice).is_err();
                    if failed {
                        world.after_failure(&mut dice);
                    }
                    failed
                });
            if !failed {
                operations = operation;
                break 'operations;
            }
            recover(&mut world, &mut dice, &mut Met::new());
            world.check(&mut dice);
            acts(&mut world, &mut dice, 3, &mut Met::new());
            world.restart(Loss::Unsynced);
            world.open().unwrap();
            world.settle();
            world.check(&mut dice);
            assert_eq!(Streams::default().read(&world.disk().written()), 0);
        }
    }
    assert!(operations > 80, "{operations} operations");
}

/// The same key and nonce with another message, in a frame and in a record of the key store.
#[test]
fn a_key_stream_used_twice_is_seen() {
    let mut world = World::small(MemoryFiles::seeded(1));
    let mut dice = Dice::new(1);
    world.open().unwrap();
    for act in [Act::Append, Act::Put, Act::Append] {
        act.run(&mut world, &mut dice).unwrap();
    }
    let written = world.disk().written();
    assert_eq!(Streams::default().read(&written), 0);
    let frame = written.iter().find(|bytes| bytes.starts_with(b"ehrb")).unwrap();
    let record = written.iter().rfind(|bytes| streams::record(bytes).is_some()).unwrap();
    for sealed in [frame, record] {
        let mut other = sealed.clone();
        // The last byte before the tag.
        let last = other.len() - 17;
        other[last] ^= 1;
        assert_eq!(Streams::default().read(&[&written[..], &[other]].concat()), 1);
        assert_eq!(
            Streams::default().read(&[&written[..], std::slice::from_ref(sealed)].concat()),
            0,
            "the same bytes again"
        );
    }
}
