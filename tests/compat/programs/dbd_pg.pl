# What Perl applications do, through DBD::Pg: one line a case, "ok NAME" or "not ok NAME: why".
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async);

my ($host, $port, $user, $password, $database) = @ARGV;
$| = 1;

sub connected {
    my %options = @_;
    return DBI->connect("dbi:Pg:host=$host;port=$port;dbname=$database", $user, $password,
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, %options });
}

sub run {
    my ($name, $test, %options) = @_;
    my $done = eval { my $db = connected(%options); $test->($db); $db->disconnect; 1 };
    my $why = $@;
    $why =~ s/\n/ /g;
    print $done ? "ok $name\n" : "not ok $name: $why\n";
}

sub is {
    my ($found, $wanted) = @_;
    die "found $found, not $wanted" if $found ne $wanted;
}

run('simple', sub { is($_[0]->selectrow_array('SELECT 1'), 1) });
for my $prepare (0, 1, 2) {
    run("prepared $prepare", sub {
        my $s = $_[0]->prepare('SELECT ?::int + 1', { pg_server_prepare => $prepare, pg_prepare_now => $prepare == 2 });
        for my $i (1 .. 20) { $s->execute($i); is($s->fetchrow_array, $i + 1) }
    });
}
run('transaction', sub {
    my $db = shift;
    $db->do('CREATE TABLE IF NOT EXISTS perl_driver (n int)');
    $db->begin_work;
    $db->do('INSERT INTO perl_driver VALUES (?)', undef, 1);
    $db->rollback;
    is($db->selectrow_array('SELECT count(*) FROM perl_driver'), 0);
});
run('no autocommit', sub {
    my $db = shift;
    is($db->selectrow_array('SELECT 2'), 2);
    $db->commit;
    $db->pg_savepoint('here');
    eval { $db->do('SELECT 1/0') };
    is($db->state, '22012');
    $db->pg_rollback_to('here');
    is($db->selectrow_array('SELECT 3'), 3);
    $db->rollback;
}, AutoCommit => 0);
run('copy', sub {
    my $db = shift;
    $db->do('CREATE TEMP TABLE copied (n int)');
    $db->do('COPY copied FROM STDIN');
    $db->pg_putcopydata("$_\n") for 1 .. 100;
    $db->pg_putcopyend;
    is($db->selectrow_array('SELECT sum(n) FROM copied'), 5050);
});
run('notification', sub {
    my $db = shift;
    $db->do('LISTEN perl_driver');
    my $other = connected();
    $other->do("NOTIFY perl_driver, 'hello'");
    $other->disconnect;
    my $got;
    for (1 .. 100) { last if $got = $db->pg_notifies; select undef, undef, undef, 0.05 }
    is($got->[2], 'hello');
});
run('cancel', sub {
    my $db = shift;
    my $s = $db->prepare('SELECT pg_sleep(20)', { pg_async => PG_ASYNC });
    $s->execute;
    select undef, undef, undef, 0.3;
    $s->pg_cancel;
    is($db->selectrow_array("SELECT 'alive'"), 'alive');
});
run('metadata', sub {
    my $db = shift;
    my $s = $db->table_info(undef, 'public', 'perl_driver', 'TABLE');
    is(scalar @{ $s->fetchall_arrayref }, 1);
    $s = $db->column_info(undef, 'public', 'perl_driver', undef);
    is(scalar @{ $s->fetchall_arrayref }, 1);
});
run('ping', sub { is($_[0]->ping > 0, 1) });
run('large object', sub {
    my $db = shift;
    $db->begin_work;
    my $oid = $db->pg_lo_creat($db->{pg_INV_WRITE});
    my $fd = $db->pg_lo_open($oid, $db->{pg_INV_WRITE});
    is($db->pg_lo_write($fd, 'x' x 1000, 1000), 1000);
    $db->pg_lo_close($fd);
    $db->pg_lo_unlink($oid);
    $db->commit;
});
