//! Both ends of a pairing, driven without a network.

use super::*;
use crate::digest::hex;

/// Random numbers from a seed: BLAKE3's output stream.
struct Seeded(blake3::OutputReader);

fn seeded(seed: u8) -> Seeded {
    Seeded(blake3::Hasher::new().update(&[seed]).finalize_xof())
}

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }
    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill(dest);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Seeded {}

const CHANNEL: Channel = Channel { exporter: [5; 32], joiner: PeerId([6; 32]), inviter: PeerId([7; 32]) };

fn code(text: &str) -> Code {
    Code::parse(text).expect("a code")
}

fn window() -> Window {
    Window::new(code("417-otter-maple"), Role::Owner, 0)
}

/// A whole exchange of a joiner who typed `typed`, each end with the channel as it sees it.
fn pair(window: &mut Window, typed: &str, ours: Channel, theirs: Channel, now_ms: u64) -> Result<Role, PairError> {
    let (joiner, open) = Joiner::start(&code(typed), ours, &mut seeded(1));
    let (inviter, answer) = window.begin(open, theirs, now_ms, &mut seeded(2)).map_err(PairError::Refused)?;
    let (proven, confirm) = joiner.answered(answer)?;
    let confirmed = inviter.confirm(window, &confirm, now_ms).map_err(PairError::Refused)?;
    proven.confirmed(confirmed)
}

#[test]
fn the_right_code_on_one_channel_pairs() {
    assert_eq!(pair(&mut window(), "417-otter-maple", CHANNEL, CHANNEL, 0), Ok(Role::Owner));
    let mut worker = Window::new(code("417-otter-maple"), Role::Worker, 0);
    assert_eq!(pair(&mut worker, "417-otter-maple", CHANNEL, CHANNEL, WINDOW_MS - 1), Ok(Role::Worker));
}

#[test]
fn the_exchange_is_what_it_always_was() {
    let mut window = window();
    let (joiner, open) = Joiner::start(window.code(), CHANNEL, &mut seeded(1));
    let (inviter, answer) = window.begin(open.clone(), CHANNEL, 0, &mut seeded(2)).expect("begins");
    let (_, confirm) = joiner.answered(answer.clone()).expect("answers");
    let confirmed = inviter.confirm(&mut window, &confirm, 0).expect("confirms");
    let seen: Vec<String> = [
        postcard::to_stdvec(&open),
        postcard::to_stdvec(&answer),
        postcard::to_stdvec(&confirm),
        postcard::to_stdvec(&confirmed),
    ]
    .into_iter()
    .map(|bytes| hex(&bytes.expect("encodes")))
    .collect();
    let expected: Vec<&str> = include_str!("vector.txt").lines().collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_wrong_code_costs_a_try_and_three_cancel_the_code() {
    let mut window = window();
    for tries_left in [2, 1, 0] {
        let wrong = pair(&mut window, "417-otter-marble", CHANNEL, CHANNEL, 0);
        assert_eq!(wrong, Err(PairError::Refused(Refusal::WrongCode { tries_left })));
    }
    let right = pair(&mut window, "417-otter-maple", CHANNEL, CHANNEL, 0);
    assert_eq!(right, Err(PairError::Refused(Refusal::Cancelled)));
    assert!(!window.is_open(0));
}

#[test]
fn other_digits_are_refused_without_costing_a_try() {
    let mut window = window();
    let other = pair(&mut window, "418-otter-maple", CHANNEL, CHANNEL, 0);
    assert_eq!(other, Err(PairError::Refused(Refusal::OtherCode)));
    assert_eq!(window.tries_left(), TRIES);
}

#[test]
fn a_code_expires_after_five_minutes_even_in_the_middle_of_a_pairing() {
    let late = pair(&mut window(), "417-otter-maple", CHANNEL, CHANNEL, WINDOW_MS);
    assert_eq!(late, Err(PairError::Refused(Refusal::Closed)));
    let mut window = window();
    let (joiner, open) = Joiner::start(window.code(), CHANNEL, &mut seeded(1));
    let (inviter, answer) = window.begin(open, CHANNEL, WINDOW_MS - 1, &mut seeded(2)).expect("begins");
    let (_, confirm) = joiner.answered(answer).expect("answers");
    assert_eq!(inviter.confirm(&mut window, &confirm, WINDOW_MS), Err(Refusal::Closed));
}

#[test]
fn a_relay_is_refused_though_the_code_is_right() {
    let legs = [
        Channel { exporter: [8; 32], ..CHANNEL },
        Channel { joiner: PeerId([8; 32]), ..CHANNEL },
        Channel { inviter: PeerId([8; 32]), ..CHANNEL },
    ];
    for leg in legs {
        let relayed = pair(&mut window(), "417-otter-maple", CHANNEL, leg, 0);
        assert_eq!(relayed, Err(PairError::Refused(Refusal::WrongCode { tries_left: 2 })), "{leg:?}");
    }
}

#[test]
fn an_inviter_that_does_not_know_the_code_is_not_believed() {
    let (joiner, open) = Joiner::start(&code("417-otter-maple"), CHANNEL, &mut seeded(1));
    let mut guess = Window::new(code("417-otter-marble"), Role::Owner, 0);
    let (_, answer) = guess.begin(open, CHANNEL, 0, &mut seeded(2)).expect("begins");
    let (proven, confirm) = joiner.answered(answer).expect("answers");
    let FromJoiner::Confirm { mac } = confirm else { panic!("a confirmation") };
    // Its best try: the joiner's own proof sent back.
    assert_eq!(proven.confirmed(FromInviter::Confirmed { role: Role::Owner, mac }), Err(PairError::Unproven));
}

#[test]
fn messages_sent_back_prove_nothing() {
    // The joiner's element as the inviter's answer: another generator blinds that side.
    let (joiner, open) = Joiner::start(&code("417-otter-maple"), CHANNEL, &mut seeded(1));
    let FromJoiner::Open { versions, element, .. } = open else { panic!("an opening") };
    let (proven, confirm) = joiner.answered(FromInviter::Answer { versions, element }).expect("a group element");
    let FromJoiner::Confirm { mac } = confirm else { panic!("a confirmation") };
    assert_eq!(proven.confirmed(FromInviter::Confirmed { role: Role::Owner, mac }), Err(PairError::Unproven));
}

#[test]
fn the_role_is_under_the_inviters_proof() {
    let mut window = Window::new(code("417-otter-maple"), Role::Client, 0);
    let (joiner, open) = Joiner::start(window.code(), CHANNEL, &mut seeded(1));
    let (inviter, answer) = window.begin(open, CHANNEL, 0, &mut seeded(2)).expect("begins");
    let (proven, confirm) = joiner.answered(answer).expect("answers");
    let Ok(FromInviter::Confirmed { mac, .. }) = inviter.confirm(&mut window, &confirm, 0) else { panic!("confirms") };
    assert_eq!(proven.confirmed(FromInviter::Confirmed { role: Role::Owner, mac }), Err(PairError::Unproven));
}

#[test]
fn the_versions_are_under_the_proofs() {
    let mut window = window();
    let (joiner, open) = Joiner::start(window.code(), CHANNEL, &mut seeded(1));
    let FromJoiner::Open { discriminator, element, .. } = open else { panic!("an opening") };
    // Somebody in between claims that the joiner speaks more than it does.
    let altered = FromJoiner::Open { versions: Versions { min: 1, max: 9 }, discriminator, element };
    let (inviter, answer) = window.begin(altered, CHANNEL, 0, &mut seeded(2)).expect("begins");
    let (_, confirm) = joiner.answered(answer).expect("answers");
    assert_eq!(inviter.confirm(&mut window, &confirm, 0), Err(Refusal::WrongCode { tries_left: 2 }));
}

#[test]
fn machines_without_a_common_version_say_so() {
    let far = Versions { min: 900, max: 901 };
    let open = FromJoiner::Open { versions: far, discriminator: 417, element: [1; 32] };
    assert_eq!(window().begin(open, CHANNEL, 0, &mut seeded(2)).err(), Some(Refusal::Version));
    let (joiner, _) = Joiner::start(&code("417-otter-maple"), CHANNEL, &mut seeded(1));
    let answer = FromInviter::Answer { versions: far, element: [1; 32] };
    assert_eq!(joiner.answered(answer).err(), Some(PairError::Version));
}

#[test]
fn a_second_machine_is_told_to_wait_until_the_first_is_done_or_gone() {
    let mut window = window();
    let open = || Joiner::start(&code("417-otter-maple"), CHANNEL, &mut seeded(1)).1;
    assert!(window.begin(open(), CHANNEL, 0, &mut seeded(2)).is_ok());
    assert_eq!(window.begin(open(), CHANNEL, 0, &mut seeded(2)).err(), Some(Refusal::Busy));
    window.abandon();
    assert_eq!(pair(&mut window, "417-otter-maple", CHANNEL, CHANNEL, 0), Ok(Role::Owner));
    assert_eq!(window.tries_left(), TRIES);
}

#[test]
fn bytes_that_are_no_group_element_and_messages_out_of_turn_are_malformed() {
    let mut no_element = [0; 32];
    no_element[0] = 2; // No point of the curve has this y.
    let bad = [
        FromJoiner::Open { versions: Versions::OURS, discriminator: 417, element: no_element },
        FromJoiner::Confirm { mac: [0; 32] },
    ];
    for message in bad {
        let mut window = window();
        assert_eq!(window.begin(message, CHANNEL, 0, &mut seeded(2)).err(), Some(Refusal::Malformed));
        assert!(
            window
                .begin(Joiner::start(&code("417-otter-maple"), CHANNEL, &mut seeded(1)).1, CHANNEL, 0, &mut seeded(2))
                .is_ok()
        );
    }
    let (joiner, open) = Joiner::start(&code("417-otter-maple"), CHANNEL, &mut seeded(1));
    let early = FromInviter::Confirmed { role: Role::Owner, mac: [0; 32] };
    assert_eq!(joiner.answered(early).err(), Some(PairError::Malformed));
    let mut window = window();
    let (inviter, _) = window.begin(open.clone(), CHANNEL, 0, &mut seeded(2)).expect("begins");
    assert_eq!(inviter.confirm(&mut window, &open, 0), Err(Refusal::Malformed));
}
