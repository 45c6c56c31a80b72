//! The commands and their options, declared (DECIDE).
//!
//! `mesh cc` is listed here for the help only: the launcher is told by the first words, before any of this is looked at.

use crate::view::history::Since;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{ffi::OsString, path::PathBuf};

const EXAMPLES: &str = "\
Examples:
  mesh up                                  start on this machine, then add others with: mesh pair
  mesh cc gcc -c hello.c -o hello.o        compile on the least loaded machine that has this gcc
  cmake -B build -DCMAKE_C_COMPILER_LAUNCHER=mesh-cc -DCMAKE_CXX_COMPILER_LAUNCHER=mesh-cc
";

const TOOLCHAIN_EXAMPLES: &str = "\
Examples:
  mesh toolchain                           the compilers of this machine, who has them, and what is on its way
  mesh toolchain --why tower gcc           in which files this gcc differs from what tower has
  mesh toolchain push gcc --to tower       send it there now
";

/// Turns the machines on a desk or in an office into one compiler.
#[derive(Debug, Parser)]
#[command(
    name = "mesh",
    version,
    before_help = EXAMPLES,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    infer_subcommands = false,
    max_term_width = 120
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile: put it before a compile command, or name mesh-cc as your build system's compiler launcher
    Cc(Cc),
    /// Run a build so that it compiles on the whole mesh: make, ninja, CMake, Meson, cargo
    With(With),
    /// Run something that is no compile, such as a link, when this machine has room for it
    Local(Local),
    /// Tell how many compilers a build should start at once
    Jobs(Jobs),
    /// Start the agent in the background; makes a mesh if this machine is in none
    Up(Up),
    /// Stop the agent: it finishes what runs
    Down,
    /// Show a code with which another machine joins this one's mesh
    Pair(Pair),
    /// Join the mesh of the machine that shows this code
    Join(Join),
    /// Make a token with which machines join without anybody at them: CI, containers
    Invite(Invite),
    /// Put a machine out of the mesh: it is refused from then on
    Forget(Forget),
    /// Use no result any more that a machine has made until now, and list what it made
    Taint(Taint),
    /// Leave the mesh: this machine gets a new identity and is in none
    Leave(Sure),
    /// Give this machine a new key in its mesh; the old one is out
    Rekey(Sure),
    /// Leave the mesh and begin a new one
    Reset(Reset),
    /// Show the mesh that this machine is in, and its tokens
    List(Json),
    /// Print this machine's id
    Id(Json),
    /// List the machines of the mesh
    Peers(Peers),
    /// Show what this machine lends, borrows and compiles itself, and why
    Status(Json),
    /// Tell where a file was compiled, and why there
    Explain(Explain),
    /// List the compilers of this machine, who has them and what is sent where
    Toolchain(Toolchain),
    /// Show what results are kept here, check them or remove them
    Cache(Cache),
    /// Count what was compiled where, what was kept and what that saved
    Stats(Stats),
    /// Lend nothing for a while
    Pause(Pause),
    /// End the pause
    Resume,
    /// Show or set what this machine lends: off, idle, share or full
    Mode(Mode),
    /// Check what this machine can do, and say what to do about what it cannot
    Doctor(Json),
    /// Print how to build this folder's project on the mesh, or how to run mesh elsewhere
    Setup(Setup),
    /// Build some C and C++ through two agents on this machine and compare every byte
    Demo,
    /// Start the agent at every login, by systemd or launchd
    Install(Install),
    /// Undo what "mesh install" did
    Uninstall,
    /// Print what a shell needs to complete mesh's words
    Completions(Completions),
    /// Write the manual's pages into a folder, for packages
    Man(Man),
    /// Run the agent in the foreground
    Agent(Agent),
    /// Print the version
    Version,
    /// Show a command's options, or what the code means for which a unit was compiled here
    Help(Help),
}

/// A compile command.
#[derive(Debug, Args)]
pub struct Cc {
    /// The compiler and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMPILER ARGS")]
    pub words: Vec<OsString>,
}

/// A build.
#[derive(Debug, Args)]
pub struct With {
    /// Start so many at once at most; "max" for as many as the mesh has room for, as without this all builds but cargo's do
    #[arg(short, long, value_name = "N|max", value_parser = jobs)]
    pub jobs: Option<u32>,
    /// Compile on this machine alone
    #[arg(long)]
    pub local: bool,
    /// Let only machines of the mesh's owners compile, and use no result that another one made
    #[arg(long)]
    pub trusted_only: bool,
    /// Exit with 5 if fewer of a hundred units are compiled elsewhere
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub expect_remote: Option<u8>,
    /// The build's command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn jobs(word: &str) -> Result<u32, String> {
    match word.parse() {
        _ if word == "max" => Ok(u32::MAX),
        Ok(0) | Err(_) => Err("a number from 1 on, or max".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// Something that is no compile.
#[derive(Debug, Args)]
pub struct Local {
    /// The memory that it needs, such as 4G or 500M; 4G for a link with link-time optimisation, else 1G
    #[arg(long, value_name = "SIZE", value_parser = kib)]
    pub memory: Option<u64>,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// A size in KiB.
fn kib(word: &str) -> Result<u64, String> {
    let (number, shift) = match word.strip_suffix(['K', 'M', 'G']) {
        Some(number) if word.ends_with('M') => (number, 10),
        Some(number) if word.ends_with('G') => (number, 20),
        Some(number) => (number, 0),
        None => return Err("a number with K, M or G".to_owned()),
    };
    let size = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    size.ok_or_else(|| "a number with K, M or G".to_owned())
}

/// How much a build should start.
#[derive(Debug, Args)]
pub struct Jobs {
    /// Of this machine's cores alone
    #[arg(long, conflicts_with = "remote")]
    pub local: bool,
    /// Of the other machines alone
    #[arg(long)]
    pub remote: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Starting.
#[derive(Debug, Args)]
pub struct Up {
    /// The name of the mesh, if one is made
    #[arg(long, default_value = "home", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub name: String,
    /// Stay in the foreground
    #[arg(long)]
    pub foreground: bool,
}

/// Admitting a machine.
#[derive(Debug, Args)]
pub struct Pair {
    /// What the other machine may do
    #[arg(long = "as", value_enum, default_value = "owner", value_name = "ROLE")]
    pub role: Role,
}

/// What a machine may do in a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Admit others, submit and serve
    Owner,
    /// Submit and serve
    Peer,
    /// Serve only
    Worker,
    /// Submit only
    Client,
}

impl Role {
    /// Its name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Peer => "peer",
            Self::Worker => "worker",
            Self::Client => "client",
        }
    }
}

/// A token.
#[derive(Debug, Args)]
pub struct Invite {
    /// What the machines are that join by it
    #[arg(long = "as", value_enum, default_value = "client", value_name = "ROLE")]
    pub role: TokenRole,
    /// How long it lives, and with it the membership of those that joined by it: 12h, 30d; 90d at most; without this 7d for clients
    /// and 24h for others
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// What it is called; its role and a number without this
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub label: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What machines are that join by a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Submit and serve
    Peer,
    /// Serve only
    Worker,
    /// Submit only
    Client,
}

impl TokenRole {
    /// Its name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => Role::Peer,
            Self::Worker => Role::Worker,
            Self::Client => Role::Client,
        }
        .name()
    }
}

/// Joining.
#[derive(Debug, Args)]
pub struct Join {
    /// The code, such as 417-otter-maple; with @HOST[:PORT] where discovery does not reach; or a token; - reads it from standard input
    #[arg(value_name = "CODE[@ADDR]|TOKEN")]
    pub code: String,
    /// Leave the mesh that this machine is in, with its other machines
    #[arg(long)]
    pub leave: bool,
    /// Join with a new identity, as a machine must that was forgotten; leaves the mesh that this one is in
    #[arg(long)]
    pub new_identity: bool,
}

/// Not using a machine's results.
#[derive(Debug, Args)]
pub struct Taint {
    /// Its name, or the first characters of its id; it may have been forgotten already
    #[arg(value_name = "NAME")]
    pub name: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What is done without a question if it is said so.
#[derive(Debug, Args)]
pub struct Sure {
    /// Ask nothing
    #[arg(long)]
    pub yes: bool,
}

/// A mesh of this machine's own.
#[derive(Debug, Args)]
pub struct Reset {
    /// What it is called; as the one before without this
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub yes: bool,
}

/// Putting a machine out.
#[derive(Debug, Args)]
pub struct Forget {
    /// Its name, or the first characters of its id (see mesh peers); token:NAME for a token and all that joined by it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Somebody else may have it: what it has admitted is forgotten with it
    #[arg(long)]
    pub stolen: bool,
    /// Ask nothing
    #[arg(long)]
    pub yes: bool,
}

/// Lending nothing for a while.
#[derive(Debug, Args)]
pub struct Pause {
    /// For how long, such as 30m or 2h; until "mesh resume" if nothing is said
    #[arg(value_name = "TIME")]
    pub time: Option<String>,
}

/// What is lent.
#[derive(Debug, Args)]
pub struct Mode {
    /// off: nothing; idle: while nobody uses the machine; share: what you leave; full: everything; auto: as configured
    #[arg(value_name = "MODE")]
    pub mode: Option<String>,
}

/// The list of machines.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Peers {
    /// One change to the list
    #[command(subcommand)]
    pub change: Option<PeersChange>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// With addresses and ids
    #[arg(short, long, value_enum, value_name = "FORM")]
    pub output: Option<Output>,
}

/// How much a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Everything
    Wide,
}

/// Addresses where machines of the mesh may be.
#[derive(Debug, Subcommand)]
pub enum PeersChange {
    /// Look for a machine of the mesh at this address too
    Add {
        /// A host name or address
        #[arg(value_name = "HOST[:PORT]")]
        address: String,
    },
    /// Look there no more
    Remove {
        /// As it was added
        #[arg(value_name = "HOST[:PORT]")]
        address: String,
    },
}

/// How to print.
#[derive(Debug, Args)]
pub struct Json {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// A command, or a code.
#[derive(Debug, Args)]
pub struct Help {
    /// A command, such as peers; a code, such as NATIVE_ARCH; or codes, for all of them
    #[arg(value_name = "COMMAND|CODE")]
    pub words: Vec<String>,
}

/// A shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// The manual.
#[derive(Debug, Args)]
pub struct Man {
    /// Where the pages go, such as share/man/man1
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// What is needed to run mesh elsewhere.
#[derive(Debug, Args)]
pub struct Setup {
    /// For what; without this, for the project in this folder
    #[arg(value_enum)]
    pub what: Option<SetupFor>,
}

/// Where mesh can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SetupFor {
    /// A container that lends its compilers: its file, and the commands that build and run it
    Container,
    /// What lets other machines through this one's firewall
    Firewall,
    /// A project with CMakeLists.txt
    Cmake,
    /// A project with a Makefile
    Make,
    /// The Linux kernel
    Kernel,
    /// A project with meson.build
    Meson,
    /// A project with a configure script
    Autotools,
    /// The C and C++ parts of a Cargo project
    Cargo,
    /// ccache in front of mesh
    Ccache,
    /// Links named like compilers, for a build that cannot be told of a launcher
    Links,
    /// xcodebuild
    Xcode,
    /// GN: Chromium, V8
    Gn,
    /// Bazel
    Bazel,
    /// Buildroot
    Buildroot,
    /// The Android NDK's ndk-build
    Ndk,
    /// ESP-IDF
    Idf,
    /// SCons and Waf
    Scons,
}

/// Results that are kept.
#[derive(Debug, Args)]
pub struct Cache {
    /// What to do with them: by default, show how many there are
    #[arg(value_enum, default_value = "stats")]
    pub what: CacheDo,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What to do with the results that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheDo {
    /// Show how many there are, what room they take and what they were good for
    Stats,
    /// Remove all of them
    Clear,
    /// Read all of them, and remove those that are damaged
    Verify,
}

/// What was counted.
#[derive(Debug, Args)]
pub struct Stats {
    /// Only for so long, such as 30m, 2h or 2d, or since the last build began or the machine was started; without this,
    /// since --zero, as far back as is known (8 days)
    #[arg(long, value_name = "TIME|build|boot", value_parser = Since::parse)]
    pub since: Option<Since>,
    /// A row for each
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<StatsBy>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// Forget everything that was counted, and begin at zero
    #[arg(long, conflicts_with_all = ["since", "by", "json"])]
    pub zero: bool,
}

/// What has a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatsBy {
    /// Machines, by how much they have compiled
    Peer,
    /// Why units were compiled here, and why results were not kept
    Reason,
    /// Sources, by how long they took, as far as the agent remembers them
    File,
}

/// Which unit.
#[derive(Debug, Args)]
pub struct Explain {
    /// A source or an object; "last" for the last one of all
    #[arg(default_value = "last", value_name = "FILE|last")]
    pub file: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// The compilers.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, before_help = TOOLCHAIN_EXAMPLES)]
pub struct Toolchain {
    /// Something other than the list
    #[command(subcommand)]
    pub command: Option<ToolchainCommand>,
    /// Tell in what the compilers of this machine that PEER lacks, or the one called NAME, differ from those it has
    #[arg(long, num_args = 1..=2, value_names = ["PEER", "NAME"], conflicts_with = "output")]
    pub why: Vec<OsString>,
    /// How to print the list
    #[command(flatten)]
    pub list: ToolchainList,
}

/// How to print the list of compilers.
#[derive(Debug, Args)]
pub struct ToolchainList {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// A row for each name of a compiler, with the file behind it
    #[arg(short, long, value_enum, value_name = "FORM")]
    pub output: Option<Output>,
}

/// What may be done with compilers.
#[derive(Debug, Subcommand)]
pub enum ToolchainCommand {
    /// List the compilers of this machine, who has them and what is sent where; what "mesh toolchain" alone does
    List(ToolchainList),
    /// Show what decides a compiler's output: its files and what it says of itself
    Show {
        /// A name as builds use it, a path, or the id in the list
        #[arg(value_name = "NAME|PATH|ID")]
        name: OsString,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Send a compiler now to machines that lack it, without waiting until a unit wants it there
    Push {
        /// A name as builds use it, a path, or the id in the list; gcc, g++, cc, c++, clang and clang++ if none is named
        #[arg(value_name = "NAME|PATH|ID")]
        name: Option<OsString>,
        /// To this machine only
        #[arg(long, value_name = "PEER")]
        to: Option<String>,
    },
    /// Remove the compilers that other machines sent here
    Prune {
        /// Those that were used lately, too
        #[arg(long)]
        all: bool,
    },
}

/// The service.
#[derive(Debug, Args)]
pub struct Install {
    /// Show what would be written and run, and change nothing
    #[arg(long, visible_alias = "dry-run")]
    pub print: bool,
    /// Make links named like compilers there, for the front of PATH
    #[arg(long, value_name = "DIR")]
    pub links: Option<PathBuf>,
    /// The name of the mesh, if one is made
    #[arg(long, default_value = "home", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub name: String,
}

/// The agent.
#[derive(Debug, Args)]
pub struct Agent {
    /// Start one in the background and return
    #[arg(long)]
    pub detach: bool,
    /// Compilers that it runs for others at once
    #[arg(long, value_name = "N")]
    pub slots: Option<u16>,
    /// The UDP port; 0 for any
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declarations_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_three_examples_before_the_commands() {
        let help = Cli::command().term_width(100).render_help().to_string();
        insta::assert_snapshot!(help, @r#"
        Examples:
          mesh up                                  start on this machine, then add others with: mesh pair
          mesh cc gcc -c hello.c -o hello.o        compile on the least loaded machine that has this gcc
          cmake -B build -DCMAKE_C_COMPILER_LAUNCHER=mesh-cc -DCMAKE_CXX_COMPILER_LAUNCHER=mesh-cc

        Turns the machines on a desk or in an office into one compiler

        Usage: mesh <COMMAND>

        Commands:
          cc           Compile: put it before a compile command, or name mesh-cc as your build system's
                       compiler launcher
          with         Run a build so that it compiles on the whole mesh: make, ninja, CMake, Meson, cargo
          local        Run something that is no compile, such as a link, when this machine has room for it
          jobs         Tell how many compilers a build should start at once
          up           Start the agent in the background; makes a mesh if this machine is in none
          down         Stop the agent: it finishes what runs
          pair         Show a code with which another machine joins this one's mesh
          join         Join the mesh of the machine that shows this code
          invite       Make a token with which machines join without anybody at them: CI, containers
          forget       Put a machine out of the mesh: it is refused from then on
          taint        Use no result any more that a machine has made until now, and list what it made
          leave        Leave the mesh: this machine gets a new identity and is in none
          rekey        Give this machine a new key in its mesh; the old one is out
          reset        Leave the mesh and begin a new one
          list         Show the mesh that this machine is in, and its tokens
          id           Print this machine's id
          peers        List the machines of the mesh
          status       Show what this machine lends, borrows and compiles itself, and why
          explain      Tell where a file was compiled, and why there
          toolchain    List the compilers of this machine, who has them and what is sent where
          cache        Show what results are kept here, check them or remove them
          stats        Count what was compiled where, what was kept and what that saved
          pause        Lend nothing for a while
          resume       End the pause
          mode         Show or set what this machine lends: off, idle, share or full
          doctor       Check what this machine can do, and say what to do about what it cannot
          setup        Print how to build this folder's project on the mesh, or how to run mesh elsewhere
          demo         Build some C and C++ through two agents on this machine and compare every byte
          install      Start the agent at every login, by systemd or launchd
          uninstall    Undo what "mesh install" did
          completions  Print what a shell needs to complete mesh's words
          man          Write the manual's pages into a folder, for packages
          agent        Run the agent in the foreground
          version      Print the version
          help         Show a command's options, or what the code means for which a unit was compiled here

        Options:
          -h, --help     Print help
          -V, --version  Print version
        "#);
    }
}
