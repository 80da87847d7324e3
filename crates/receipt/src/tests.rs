//! A whole receipt, made of real certificates, a real log and real roots; and everything that must break it.

mod bytes;
mod demands;
mod doctored;
mod foreign;
mod golden;
mod lines;
mod pieces;
mod releases;
mod witnesses;
mod world;
