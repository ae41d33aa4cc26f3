-- needs 16
-- \watch that counts
CREATE TABLE seen (n int);
INSERT INTO seen SELECT count(*) FROM seen \watch i=0.01 c=5
SELECT n FROM seen ORDER BY n \watch c=3 i=0
SELECT 1/0 \watch c=3
