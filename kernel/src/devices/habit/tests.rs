//! Habits of machines that answer more in one way or the other.
#![forbid(unsafe_code)]

use super::*;

/// Plays a machine for so many milliseconds that answers so many requests in each if one looks, and if one halts; says in how
/// many was looked.
fn play_for(ms: usize, habit: &mut Habit, looking: u32, halting: u32) -> usize {
    let (mut now, mut asked, mut looked) = (habit.begin_ns, habit.asked, 0);
    for _ in 0..ms {
        let looks = habit.decide(now, asked);
        looked += usize::from(looks);
        now += 1_000_000;
        asked = asked.wrapping_add(if looks { looking } else { halting });
    }
    looked
}

/// The last thousand of two thousand milliseconds.
fn play(habit: &mut Habit, looking: u32, halting: u32) -> usize {
    play_for(1000, habit, looking, halting);
    play_for(1000, habit, looking, halting)
}

#[test]
fn what_answers_more_is_done() {
    let mut habit = Habit::new();
    assert!(play(&mut habit, 20, 10) > 800);
    assert!(play(&mut habit, 10, 20) < 200, "and given up when that changes");
    assert!(play(&mut habit, 30, 20) > 800);
}

/// As when another program asks, or asks otherwise.
#[test]
fn what_was_learnt_of_another_load_is_tried_again_at_once() {
    let mut habit = Habit::new();
    assert!(play(&mut habit, 10, 20) < 200);
    let looked = play_for(40, &mut habit, 200, 100);
    assert!(looked > 20, "of 40 ms: {looked}");
}

#[test]
fn a_pause_is_no_reason_to_learn_anew() {
    let mut habit = Habit::new();
    play(&mut habit, 20, 10);
    assert!(habit.decide(habit.begin_ns + 100_000_000, habit.asked + 1), "the first wait after it");
    let looked = play_for(20, &mut habit, 20, 10);
    assert!(looked > 10, "of 20 ms: {looked}");
}

/// As on a host with more to run than it has cores: who looks is robbed of the CPU now and then, but not at once.
#[test]
fn what_is_better_for_a_moment_only_is_not_done() {
    let mut habit = Habit::new();
    let (mut now, mut asked, mut looked, mut in_a_row) = (0, 0u32, 0, 0);
    for step in 0..200_000 {
        let looks = habit.decide(now, asked);
        in_a_row = if looks { in_a_row + 1 } else { 0 };
        looked += usize::from(looks && step > 100_000);
        now += match in_a_row {
            0 => 50_000,
            _ if in_a_row % 60 == 0 => 12_000_000,
            _ => 20_000,
        };
        asked = asked.wrapping_add(1);
    }
    assert!(looked < 5_000, "of 100000 waits: {looked}");
}

/// As when a host has robbed who looks for a while.
#[test]
fn what_was_wrongly_given_up_is_done_again_soon() {
    let mut habit = Habit::new();
    play(&mut habit, 20, 10);
    let gives_up = |_| {
        play_for(2, &mut habit, 6, 10);
        !habit.looks
    };
    assert!((0..1000).any(gives_up));
    let looked = play_for(100, &mut habit, 20, 10);
    assert!(looked > 40, "of 100 ms: {looked}");
}

#[test]
fn without_a_gain_the_cpu_halts() {
    assert!(play(&mut Habit::new(), 20, 20) < 200);
}

/// As on a host that takes long to wake who halts.
#[test]
fn what_is_little_because_the_cpu_halts_is_looked_for() {
    let mut habit = Habit::new();
    assert!(play(&mut habit, 10, 2) > 800);
    habit.decide(habit.begin_ns + 15_000_000, habit.asked + 1);
    let looked = play_for(10, &mut habit, 10, 2);
    assert!(looked > 5, "of 10 ms, after the CPU was taken away: {looked}");
}

#[test]
fn with_little_to_do_the_cpu_halts() {
    let mut habit = Habit::new();
    play(&mut habit, 20, 10);
    assert!(play(&mut habit, 2, 2) < 50);
    assert_eq!(play(&mut habit, 0, 0), 0);
}
