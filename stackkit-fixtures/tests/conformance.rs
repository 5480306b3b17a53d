#[tokio::main]
async fn main() {
    let t = std::time::Instant::now();
    let mut redis = stackkit_fixtures::redis().await.unwrap();
    println!("{} {:?}", redis.url(), t.elapsed());
    println!("{:?}", redis.command(&["SET", "a", "b"]).await);
    println!("{:?}", redis.stop().await);
    println!("{:?}", redis.command(&["GET", "a"]).await);
    println!("{:?}", redis.start().await);
    println!("{:?}", redis.command(&["GET", "a"]).await);
    for _ in 0..2 {
        let t = std::time::Instant::now();
        let pg = stackkit_fixtures::postgres().await.unwrap();
        println!("{} {:?}", pg.url(), t.elapsed());
        println!("{:?}", pg.query("select version()").await);
        let t = std::time::Instant::now();
        drop(pg);
        println!("{:?}", t.elapsed());
    }
    let t = std::time::Instant::now();
    let s =
        stackkit_fixtures::postgres_server(stackkit_fixtures::PostgresOptions::new().with_tcp("abc")).await.unwrap();
    println!("{:?} {:?}", s.tcp_url_of("postgres"), t.elapsed());
    let t = std::time::Instant::now();
    drop(s);
    println!("{:?}", t.elapsed());
    if std::env::args().nth(1).is_some() {
        std::thread::park();
    }
}
