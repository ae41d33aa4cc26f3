// What Java applications do, through pgjdbc: one line a case, "ok NAME" or "not ok NAME: why".

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.Arrays;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.largeobject.*;

public class Jdbc {
    interface Case { void run(Connection c) throws Exception; }

    static String url;
    static Properties login;

    static Connection connect(String options) throws SQLException {
        return DriverManager.getConnection(url + options, login);
    }

    static void check(boolean right, String what) {
        if (!right) throw new AssertionError(what);
    }

    static void run(String name, String options, Case test) {
        try (Connection c = connect(options)) {
            test.run(c);
            System.out.println("ok " + name);
        } catch (Throwable error) {
            System.out.println("not ok " + name + ": " + String.valueOf(error).replace('\n', ' '));
        }
    }

    static String value(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            return r.next() ? r.getString(1) : null;
        }
    }

    static int prepared(Connection c) throws SQLException {
        int sum = 0;
        try (PreparedStatement p = c.prepareStatement("SELECT ?::int + n FROM driver WHERE n < ?")) {
            for (int i = 0; i < 20; i++) {
                p.setInt(1, i);
                p.setInt(2, 3);
                try (ResultSet r = p.executeQuery()) { while (r.next()) sum += r.getInt(1); }
            }
        }
        return sum;
    }

    public static void main(String[] words) throws Exception {
        url = "jdbc:postgresql://" + words[0] + ":" + words[1] + "/" + words[4];
        login = new Properties();
        login.setProperty("user", words[2]);
        login.setProperty("password", words[3]);
        try (Connection c = connect(""); Statement s = c.createStatement()) {
            s.execute("DROP TABLE IF EXISTS driver; CREATE TABLE driver (n serial PRIMARY KEY, t text);"
                + " INSERT INTO driver (t) SELECT 'row ' || g FROM generate_series(1, 500) AS g");
        }
        for (String mode : Arrays.asList("", "?prepareThreshold=1", "?prepareThreshold=0", "?preferQueryMode=simple",
                "?preferQueryMode=extendedCacheEverything", "?preferQueryMode=extendedForPrepared",
                "?binaryTransfer=true&prepareThreshold=1", "?autosave=always", "?assumeMinServerVersion=9.4",
                "?options=-c%20work_mem=5MB&ApplicationName=smoke&currentSchema=public&readOnly=false")) {
            run("prepared " + mode, mode, c -> check(prepared(c) == 440, "sum"));
        }
        run("application name", "?ApplicationName=smoke", c -> check(value(c, "SHOW application_name").equals("smoke"), "name"));
        run("float digits", "", c -> check(value(c, "SHOW extra_float_digits").equals("3"), "digits"));
        run("transaction", "", c -> {
            c.setAutoCommit(false);
            try (Statement s = c.createStatement()) {
                s.executeUpdate("INSERT INTO driver (t) VALUES ('gone')");
                c.rollback();
                check(value(c, "SELECT count(*) FROM driver WHERE t = 'gone'").equals("0"), "rolled back");
                s.executeUpdate("INSERT INTO driver (t) VALUES ('stays')");
                c.commit();
                check(value(c, "SELECT count(*) FROM driver WHERE t = 'stays'").equals("1"), "committed");
                c.commit();
            }
        });
        run("savepoint", "", c -> {
            c.setAutoCommit(false);
            Savepoint point = c.setSavepoint("here");
            try (Statement s = c.createStatement()) { s.execute("SELECT 1/0"); check(false, "error"); }
            catch (SQLException error) { check(error.getSQLState().equals("22012"), error.getSQLState()); }
            c.rollback(point);
            check(value(c, "SELECT 'alive'").equals("alive"), "alive");
            c.releaseSavepoint(point);
            c.commit();
        });
        run("autosave", "?autosave=conservative", c -> {
            c.setAutoCommit(false);
            check(value(c, "SELECT count(*) FROM driver WHERE n < 3").equals("2"), "two");
            try { value(c, "SELECT nothing"); check(false, "error"); } catch (SQLException error) { c.rollback(); }
            check(value(c, "SELECT count(*) FROM driver WHERE n < 3").equals("2"), "two again");
        });
        run("isolation and read only", "", c -> {
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            check(c.getTransactionIsolation() == Connection.TRANSACTION_SERIALIZABLE, "level");
            c.setReadOnly(true);
            c.setAutoCommit(false);
            check(value(c, "SHOW transaction_read_only").equals("on"), "read only");
            try (Statement s = c.createStatement()) { s.executeUpdate("DELETE FROM driver"); check(false, "refused"); }
            catch (SQLException error) { check(error.getSQLState().equals("25006"), error.getSQLState()); }
            c.rollback();
            c.setReadOnly(false);
            c.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            check(value(c, "SHOW transaction_isolation").equals("read committed"), "back");
        });
        run("cursor", "", c -> {
            c.setAutoCommit(false);
            try (Statement s = c.createStatement()) {
                s.setFetchSize(7);
                int count = 0;
                try (ResultSet r = s.executeQuery("SELECT n FROM driver WHERE n <= 500 ORDER BY n")) {
                    while (r.next()) check(r.getInt(1) == ++count, "order");
                }
                check(count == 500, "all");
            }
            c.commit();
        });
        for (String mode : Arrays.asList("", "?reWriteBatchedInserts=true")) {
            run("batch " + mode, mode, c -> {
                try (PreparedStatement p = c.prepareStatement("INSERT INTO driver (t) VALUES (?)")) {
                    for (int i = 0; i < 300; i++) { p.setString(1, "batch"); p.addBatch(); }
                    check(p.executeBatch().length == 300, "counts");
                }
                check(value(c, "WITH gone AS (DELETE FROM driver WHERE t = 'batch' RETURNING 1) SELECT count(*) FROM gone").equals("300"), "rows");
            });
        }
        run("generated keys", "", c -> {
            try (PreparedStatement p = c.prepareStatement("INSERT INTO driver (t) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
                p.setString(1, "key");
                p.executeUpdate();
                try (ResultSet r = p.getGeneratedKeys()) { check(r.next() && r.getInt(1) > 500, "key"); }
            }
        });
        run("copy", "", c -> {
            org.postgresql.copy.CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
            check(copy.copyIn("COPY driver (t) FROM STDIN", new StringReader("copied\ncopied\n")) == 2, "in");
            StringWriter out = new StringWriter();
            check(copy.copyOut("COPY (SELECT t FROM driver WHERE t = 'copied') TO STDOUT", out) == 2, "out");
            check(out.toString().equals("copied\ncopied\n"), out.toString());
        });
        run("notifications", "", c -> {
            try (Statement s = c.createStatement()) { s.execute("LISTEN driver"); }
            try (Connection other = connect(""); Statement s = other.createStatement()) { s.execute("NOTIFY driver, 'hello'"); }
            org.postgresql.PGNotification[] got = c.unwrap(PGConnection.class).getNotifications(5000);
            check(got != null && got.length == 1 && got[0].getParameter().equals("hello"), "notification");
        });
        run("cancel and timeout", "", c -> {
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                try { s.execute("SELECT pg_sleep(20)"); check(false, "canceled"); }
                catch (SQLException error) { check(error.getSQLState().equals("57014"), error.getSQLState()); }
                s.setQueryTimeout(0);
                Thread canceller = new Thread(() -> {
                    try { Thread.sleep(300); s.cancel(); } catch (Exception error) { throw new RuntimeException(error); }
                });
                canceller.start();
                try { s.execute("SELECT pg_sleep(20)"); check(false, "canceled"); }
                catch (SQLException error) { check(error.getSQLState().equals("57014"), error.getSQLState()); }
                canceller.join();
            }
            check(value(c, "SELECT 'alive'").equals("alive"), "alive");
        });
        run("changed result type", "?prepareThreshold=1", c -> {
            try (Statement s = c.createStatement()) { s.execute("DROP TABLE IF EXISTS shape; CREATE TABLE shape (a int)"); }
            try (PreparedStatement p = c.prepareStatement("SELECT * FROM shape")) {
                for (int i = 0; i < 3; i++) p.executeQuery().close();
                try (Statement s = c.createStatement()) { s.execute("ALTER TABLE shape ADD b text"); }
                for (int i = 0; i < 3; i++) {
                    try (ResultSet r = p.executeQuery()) { check(r.getMetaData().getColumnCount() >= 1, "columns"); }
                }
            }
        });
        run("several statements", "", c -> {
            try (Statement s = c.createStatement()) {
                check(s.execute("SELECT 1; UPDATE driver SET t = t WHERE n = 1; SELECT 2"), "first");
                check(!s.getMoreResults() && s.getUpdateCount() == 1, "second");
                check(s.getMoreResults(), "third");
            }
        });
        run("metadata", "", c -> {
            DatabaseMetaData about = c.getMetaData();
            try (ResultSet r = about.getTables(null, "public", "driver", null)) { check(r.next(), "table"); }
            try (ResultSet r = about.getColumns(null, "public", "driver", null)) { check(r.next() && r.next(), "columns"); }
            try (ResultSet r = about.getPrimaryKeys(null, "public", "driver")) { check(r.next(), "key"); }
            try (ResultSet r = about.getTypeInfo()) { check(r.next(), "types"); }
        });
        run("large object", "", c -> {
            c.setAutoCommit(false);
            LargeObjectManager manager = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = manager.createLO();
            LargeObject object = manager.open(oid, LargeObjectManager.READWRITE);
            object.write(new byte[100000]);
            object.seek(0);
            check(object.read(200000).length == 100000, "size");
            object.close();
            manager.delete(oid);
            c.commit();
        });
        run("schema and temporary table", "", c -> {
            try (Statement s = c.createStatement()) {
                s.execute("CREATE SCHEMA IF NOT EXISTS elsewhere");
                c.setSchema("elsewhere");
                check(c.getSchema().equals("elsewhere"), "schema");
                s.execute("CREATE TEMP TABLE mine (n int)");
                s.execute("INSERT INTO mine VALUES (1)");
                check(value(c, "SELECT n FROM mine").equals("1"), "temporary");
            }
        });
        run("types and arrays", "?binaryTransfer=true&prepareThreshold=1", c -> {
            try (PreparedStatement p = c.prepareStatement("SELECT ?::int[], ?::timestamptz, ?::numeric, ?::bytea, ?::uuid")) {
                for (int i = 0; i < 3; i++) {
                    p.setArray(1, c.createArrayOf("int4", new Integer[] {1, 2, 3}));
                    p.setTimestamp(2, new Timestamp(0));
                    p.setBigDecimal(3, new java.math.BigDecimal("12.50"));
                    p.setBytes(4, new byte[] {0, 1, 2});
                    p.setObject(5, new java.util.UUID(1, 2));
                    try (ResultSet r = p.executeQuery()) {
                        check(r.next() && ((Integer[]) r.getArray(1).getArray()).length == 3, "array");
                        check(r.getTimestamp(2).getTime() == 0 && r.getBytes(4).length == 3, "others");
                    }
                }
            }
        });
        run("valid", "", c -> check(c.isValid(5), "valid"));
    }
}
