#![no_std]
//! policy
