//! What the demo puts into its stores: generated, the same on every run.

use std::fs;
use std::io;
use std::path::Path;

/// Rows in `orders`, and twice as many in `order_lines`.
pub(crate) const ORDERS_COUNT: u32 = 80_000;
/// Lines of an order.
pub(crate) const LINES_PER_ORDER: u32 = 2;
/// Keys of each Redis type: 6 types make 60 000 keys.
pub(crate) const KEYS_PER_TYPE: u32 = 10_000;
/// Files in the folder.
pub(crate) const FILES_COUNT: u32 = 2_400;

/// Tables of a shop: a key, text, JSON, an index, a foreign key, an enum, a view.
pub(crate) fn tables() -> String {
    format!(
        "create type state as enum ('open', 'paid', 'sent');
         create table orders (id int primary key, customer text not null, state state not null, extra jsonb, at timestamptz);
         create table order_lines (order_id int references orders, line int, article text, price numeric(10,2), primary key (order_id, line));
         insert into orders select i, 'customer ' || md5(i::text), (array['open','paid','sent']::state[])[1 + i % 3],
             jsonb_build_object('note', md5((i * 7)::text), 'n', i), timestamptz '2026-01-01' + i * interval '1 minute'
             from generate_series(1, {ORDERS_COUNT}) i;
         insert into order_lines select i, l, 'article ' || (i * l % 977), (i * l % 10007) / 100.0
             from generate_series(1, {ORDERS_COUNT}) i, generate_series(1, {LINES_PER_ORDER}) l;
         create index on order_lines (article);
         create view open_orders as select * from orders where state = 'open'"
    )
}

/// One hash over every row of the tables, in key order.
pub(crate) const ROWS_HASH: &str = "select md5(string_agg(h, '' order by h)) from (
    (select md5(string_agg(o::text, '|' order by id)) h from orders o)
    union all (select md5(string_agg(l::text, '|' order by order_id, line)) from order_lines l)) hashes";

/// A script that fills one database with keys of every type; `ARGV[1]` keys of each.
pub(crate) const KEYS_SCRIPT: &str = "
local n = tonumber(ARGV[1])
for i = 1, n do
  redis.call('SET', 'string:' .. i, string.rep('v' .. i, 1 + i % 20))
  redis.call('HSET', 'hash:' .. i, 'name', 'n' .. i, 'count', i, 'text', string.rep('x', i % 90))
  redis.call('RPUSH', 'list:' .. i, i, i + 1, 'three')
  redis.call('SADD', 'set:' .. i, i, 'a', 'b' .. i % 7)
  redis.call('ZADD', 'zset:' .. i, i, 'm' .. i, i * 0.5, 'half')
  redis.call('XADD', 'stream:' .. i, '1-' .. i, 'field', 'value' .. i)
  if i % 10 == 0 then redis.call('PEXPIREAT', 'string:' .. i, 4102444800000 + i) end
end
return redis.call('DBSIZE')";

/// Writes the files: several levels, text and binary, a sparse one, a symbolic link, a hard link.
pub(crate) fn write_files(root: &Path) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(20_261_121);
    for number in 0..FILES_COUNT {
        let folder = root.join(format!("year-{}/day-{}", number % 3, number % 40));
        fs::create_dir_all(&folder)?;
        let bytes: Vec<u8> = (0..random.usize(0..16_384)).map(|_| random.u8(..)).collect();
        fs::write(folder.join(format!("upload-{number}.bin")), bytes)?;
    }
    let sparse = fs::File::create(root.join("sparse.img"))?;
    sparse.set_len(64 * 1024 * 1024)?;
    std::os::unix::fs::symlink("year-0", root.join("latest"))?;
    fs::hard_link(root.join("year-0/day-0/upload-0.bin"), root.join("first-upload.bin"))
}
