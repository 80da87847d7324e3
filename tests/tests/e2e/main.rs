//! Everything from end to end, as a person types it. Needs root, like the node.

#[cfg(test)]
mod agents;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod gpus;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod life;
#[cfg(test)]
mod points;
#[cfg(test)]
mod pull;
#[cfg(test)]
mod quickstart;
#[cfg(test)]
mod seal;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod support;
#[cfg(test)]
mod traces;
