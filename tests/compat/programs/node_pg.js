// What node applications do, through node-postgres: one line a case, "ok NAME" or "not ok NAME: why".
const assert = require("assert");
const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");
const [host, port, user, password, database] = process.argv.slice(2);
const login = { host, port: Number(port), user, password, database };

async function run(name, test, options = {}) {
  const client = new Client({ ...login, ...options });
  client.on("error", () => {});
  try {
    await client.connect();
    await test(client);
    console.log("ok " + name);
  } catch (error) {
    console.log("not ok " + name + ": " + String(error).replace(/\n/g, " "));
  }
  await client.end().catch(() => {});
}

async function main() {
  await run("simple", async (c) => assert.equal((await c.query("SELECT 1 AS n")).rows[0].n, 1));
  await run("several statements", async (c) => assert.equal((await c.query("SELECT 1; SELECT 2")).length, 2));
  await run("parameters", async (c) => {
    for (let i = 0; i < 20; i++) assert.equal((await c.query("SELECT $1::int + 1 AS n", [i])).rows[0].n, i + 1);
  });
  await run("named", async (c) => {
    for (let i = 0; i < 20; i++) {
      const found = await c.query({ name: "plus", text: "SELECT $1::int + 2 AS n", values: [i] });
      assert.equal(found.rows[0].n, i + 2);
    }
  });
  await run("many at once", async (c) => {
    const found = await Promise.all([...Array(200).keys()].map((i) => c.query("SELECT $1::int AS n", [i])));
    found.forEach((result, i) => assert.equal(result.rows[0].n, i));
  });
  await run("transaction", async (c) => {
    await c.query("CREATE TABLE IF NOT EXISTS node_driver (n int)");
    await c.query("BEGIN");
    await c.query("INSERT INTO node_driver VALUES ($1)", [1]);
    await c.query("ROLLBACK");
    assert.equal((await c.query("SELECT count(*)::int AS n FROM node_driver")).rows[0].n, 0);
  });
  await run("error", async (c) => {
    await assert.rejects(c.query("SELECT $1::int / 0", [1]), (error) => error.code === "22012");
    assert.equal((await c.query("SELECT 1 AS n")).rows[0].n, 1);
  });
  await run("cursor", async (c) => {
    await c.query("BEGIN");
    const cursor = c.query(new Cursor("SELECT g FROM generate_series(1, 25) AS g"));
    let count = 0;
    for (let rows = await cursor.read(10); rows.length; rows = await cursor.read(10)) count += rows.length;
    assert.equal(count, 25);
    await cursor.close();
    await c.query("COMMIT");
  });
  await run("notification", async (c) => {
    const heard = new Promise((resolve) => c.on("notification", resolve));
    await c.query("LISTEN node_driver");
    await run("notify", (other) => other.query("NOTIFY node_driver, 'hello'"));
    assert.equal((await heard).payload, "hello");
  });
  await run("statement timeout", async (c) => {
    await assert.rejects(c.query("SELECT pg_sleep(20)"), (error) => error.code === "57014");
  }, { statement_timeout: 300 });
  await run("application name", async (c) => {
    assert.equal((await c.query("SHOW application_name")).rows[0].application_name, "smoke");
  }, { application_name: "smoke", options: "-c work_mem=5MB" });
  await run("json and arrays", async (c) => {
    const found = await c.query("SELECT $1::jsonb AS j, $2::int[] AS a", [{ k: [1] }, [1, 2, 3]]);
    assert.deepEqual([found.rows[0].j.k[0], found.rows[0].a.length], [1, 3]);
  });
  const pool = new Pool({ ...login, max: 5 });
  try {
    const found = await Promise.all([...Array(50).keys()].map((i) => pool.query("SELECT $1::int AS n", [i])));
    assert.equal(found.length, 50);
    console.log("ok pool");
  } catch (error) {
    console.log("not ok pool: " + error);
  }
  await pool.end();
}

main().then(() => process.exit(0));
