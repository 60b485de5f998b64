"""Cut passages of about 110 tokens, and short questions, from the CISI collection. Usage: passages.py CISI_FOLDER OUT.json"""
import json, pathlib, random, sys

cisi = pathlib.Path(sys.argv[1])
words = " ".join(json.loads(line)["text"] for line in open(cisi / "corpus.jsonl")).split()
questions = [json.loads(line)["text"] for line in open(cisi / "queries.jsonl")]
random.seed(7)
passages, at = [], 0
while len(passages) < 1000:
    n = random.randint(70, 90)
    passages.append(" ".join(words[at:at + n]))
    at = (at + n) % (len(words) - 200)
short = [" ".join(q.split()[:9]) for q in questions]
json.dump({"passages": passages, "questions": short}, open(sys.argv[2], "w"))
