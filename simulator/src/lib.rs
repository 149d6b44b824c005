//! The proof by simulation: no fault, no crash and no interleaving makes a Rollout lose traffic, hang or forget.
//!
//! ```text
//! seed ──► Script ──► Life: the controller, unchanged, on the sandbox in virtual time ──► observations ──► checkers
//!          plain data       Injector between it and the API, a user who follows the script                 one a promise
//! ```
//!
//! A [`script::Script`] is a base scenario, a seed and a list of faults and user edits, and prints as one line that parses
//! back: whatever fails is reproduced by `simulate run --script 'LINE'`. The checkers see what a user could see: objects,
//! requests to the API server, and requests of users. They share no code with the controller.
//!
//! | room | what lives there |
//! |---|---|
//! | [`script`] | what goes wrong and when, as text |
//! | [`base`] | the scenarios that things go wrong in |
//! | [`faults`] | the injector: between controller and API server |
//! | [`world`] | a cluster with its controllers, and what people and nature do to it |
//! | [`observe`] | what can be seen from outside, in one order |
//! | [`checkers`] | the promises, one file each |
//! | [`purity`] | that the same is always decided alike |
//! | [`life`] | one script, from its beginning to its verdict |
//! | [`exhaustive`], [`random`], [`minimise`] | which scripts to run |
//! | [`coverage`] | which faults met which states |
//! | [`mutants`] | whether all this finds a bug |
//! | [`parallel`] | many lives on all cores |

pub mod base;
pub mod checkers;
pub mod coverage;
pub mod exhaustive;
pub mod faults;
pub mod life;
pub mod metrics;
pub mod minimise;
pub mod mutants;
pub mod observe;
pub mod parallel;
pub mod purity;
pub mod random;
pub mod script;
pub mod world;

/// A quarter of a life went into allocating JSON with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
