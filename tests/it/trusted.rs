//! Where only machines of owners may compile, nobody else does, and what others have made is not used.

use crate::{
    desk::{Desk, Where, brief, run},
    env::{Ran, until},
    seek::keys,
};
use mesh::reason::Reason;

const ONLY: &str = "MESH_TRUSTED_ONLY";

#[test]
fn a_machine_that_is_not_an_owner_s_compiles_nothing_for_who_trusts_only_these_and_its_results_are_not_used() {
    let Some(mut desk) = Desk::with_provider_as("peer") else { return };
    desk.spoilt = true;
    desk.client.keeps = true;
    desk.restart_client();
    let unit = brief(&desk, "a");
    let only = unit.clone().env(ONLY, "1").env("MESH_CACHE", "read");
    desk.same(&only, Where::Here(Reason::Policy));
    // Without the restriction it is the same machine that compiles it.
    desk.same(&unit, Where::There);
    until("its result is kept", || (!keys(&desk.client).is_empty()).then_some(()));
    // The result is there, and is not used; nor is it thrown away.
    desk.same(&only, Where::Here(Reason::Policy));
    desk.same(&unit.clone().env(ONLY, "0"), Where::Kept);
    desk.same(&unit, Where::Kept);
    // Where nothing may be compiled here, it is not compiled at all.
    let ran = run(desk.launcher(&only.env("MESH_FALLBACK", "0")), unit.streams);
    assert_eq!(ran.code, Some(111), "{}", ran.err());
    assert!(ran.err().contains("POLICY"), "{}", ran.err());
}

#[test]
fn machines_of_owners_compile_and_what_they_made_is_used() {
    let Some(mut desk) = Desk::with_provider_as("owner") else { return };
    desk.spoilt = true;
    desk.client.keeps = true;
    desk.restart_client();
    let only = brief(&desk, "a").env(ONLY, "1");
    desk.same(&only, Where::There);
    until("its result is kept", || (!keys(&desk.client).is_empty()).then_some(()));
    desk.same(&only, Where::Kept);
}

#[test]
fn a_build_can_be_told_to_trust_only_machines_of_owners() {
    let Some(desk) = Desk::with_provider_as("peer") else { return };
    desk.write("Makefile", "a.o: a.c\n\tgcc -c a.c -o a.o\n");
    desk.write("a.c", "int a;\n");
    let made_by_make = |options: &[&str]| {
        let mut command = desk.ground.command(env!("CARGO_BIN_EXE_mesh"));
        command.arg("with").args(options).args(["--", "make", "-B"]).current_dir(&desk.project);
        command.env("MESH", "force").env("MESH_DIR", &desk.client.home).env("MESH_LOOPBACK", "1");
        let served = desk.served();
        Ran::of(&mut command).good();
        (desk.served() - served, desk.last().reason)
    };
    assert_eq!(made_by_make(&["--trusted-only"]), (0, Some(Reason::Policy)));
    assert_eq!(made_by_make(&[]), (1, None));
}
