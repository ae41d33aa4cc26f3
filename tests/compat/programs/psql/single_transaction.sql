-- options: -1 -v ON_ERROR_STOP=1
-- all of a script in one transaction, which an error ends
CREATE TABLE IF NOT EXISTS kept (n int);
INSERT INTO kept VALUES (1);
SELECT count(*) FROM kept;
\copy kept from program 'seq 2 5'
SELECT count(*) FROM kept;
SELECT 1/0;
SELECT 'not reached';
