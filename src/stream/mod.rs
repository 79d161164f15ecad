//! The stream: lanes, transactions, assignment, restore.
