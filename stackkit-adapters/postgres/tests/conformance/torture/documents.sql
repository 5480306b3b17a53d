-- JSON, XML and text search. XML needs a server that was built with it.
set search_path = "values", public;

create table documents (j json, jb jsonb, x xml, jp jsonpath, tv tsvector, tq tsquery);
insert into documents values ('{"a": 1, "a": 2,   "b":"\u00e4\n\\"}', '{"a": 1, "a": 2, "n": 1e500, "u": "\u00e4\ud83e\udd80 \" \\ "}', '<a b="&lt;''">\.<![CDATA[x]]>&#10;</a>', 'strict $."a b"[*] ? (@ > 1 && @ like_regex "^x\\d")', '''it''''s'':1A,2B ''\\'':3C b:16383', '!''it''''s'' & (a:AB* <-> b) | ''x y'' <3> c'),
    ('[]', 'null', '<?xml version="1.0" encoding="UTF-8"?><ü/>', '$', '', ''), ('"\u0000"', '"\\u0000"', 'text only', 'lax $', null, null), (('[' || repeat('[', 500) || repeat(']', 500) || ']')::json, (repeat('{"a":', 300) || '1' || repeat('}', 300))::jsonb, null, null, null, null),
    (' {"spaces" :  "kept" } ', '{"": {"": ""}}', '', '$."\u0001"', null, null);
