-- \watch until an error ends it (psql 16 could count)
CREATE SEQUENCE s;
CREATE TABLE seen (n int);
SELECT 12 / (4 - nextval('s')) AS left \watch 0.01
SELECT last_value FROM s;
INSERT INTO seen SELECT 12 / (8 - nextval('s')) \watch 0.01
SELECT n FROM seen ORDER BY n;
SELECT count(*) FROM seen;
