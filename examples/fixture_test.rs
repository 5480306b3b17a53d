//! A test with real stores: a fresh database and a private Redis, gone with their values.
//!
//! `cargo test --example fixture_test`; as a program it does the same once.

use stackkit::{BackupProvider, Error, Repository, RepositoryOptions, RestoreOptions, Result, Stack};

/// A shop's orders survive the loss of both stores.
async fn orders_survive_a_restore() -> Result<()> {
    let postgres = stackkit_fixtures::postgres().await?; // a fresh database on a shared server; dropped with the value
    let redis = stackkit_fixtures::redis().await?; // a private server on a Unix socket
    postgres.execute("create table orders(id int primary key); insert into orders values (1), (2)").await?;
    redis.command(&["SET", "cart:1", "2 apples"]).await?;

    let stack = Stack::builder("shop").service(postgres.service()?).service(redis.service()?).build()?;
    let folder = tempfile::tempdir().map_err(|error| Error::io("create a folder", error))?;
    let url = format!("file://{}", folder.path().display());
    let repository = Repository::open_or_create(&url, RepositoryOptions::new().unencrypted()).await?;
    let backup = repository.backup(&stack).run().await?;

    postgres.execute("drop table orders").await?;
    redis.command(&["FLUSHALL"]).await?;

    let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await?;
    repository.apply_restore(plan, &stack).await?;
    let orders = postgres.service()?.census().await?.count("tables.public.orders.rows");
    let cart = redis.command(&["GET", "cart:1"]).await?.text();
    assert_eq!((orders, cart.as_str()), (2, "2 apples"));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    orders_survive_a_restore().await
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn orders_survive_a_restore() -> stackkit::Result<()> {
        super::orders_survive_a_restore().await
    }
}
