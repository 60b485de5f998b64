#!/usr/bin/env python3
"""Writes reference.json: golden sentences with the vectors that sentence-transformers gives them.

Usage, from the repository's root (any virtual environment that has sentence-transformers will do):
    python3 embeddings/golden/make.py models/all-MiniLM-L6-v2 > embeddings/golden/reference.json

The vectors are rounded to seven decimals, which moves no cosine by more than 1e-7.
"""
import json
import sys

import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers import models

SENTENCES = [
    "The cat sat on the mat.",
    "A feline was resting on a rug.",
    "Quarterly revenue grew by 12.5 % to $3.4 million, ahead of guidance.",
    "How do I reset my password?",
    "To choose a new password, open Settings → Security and follow the link in the e-mail.",
    "SELECT id, name FROM users WHERE created_at > now() - interval '7 days';",
    "fn main() { println!(\"Hello, world!\"); }",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "東京は日本の首都です。",
    "Привет, мир! Это проверка.",
    "El niño comió una manzana — ¡qué rica!",
    "don't can't won't shouldn't've",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "🦊 jumps over 🐶, émigré naïveté façade",
    "a",
    "?!... --- ###",
    "   leading and trailing white space\t\n",
    "UPPER lower MiXeD CaSe",
    "line one\nline two\n\nparagraph two",
    "https://example.org/path?query=1&other=two#fragment",
    "2026-11-23T18:50:00Z 10.0.0.1 GET /api/products 200 12ms",
    "The mitochondrion is the powerhouse of the cell; photosynthesis happens in chloroplasts.",
    " ".join(f"Sentence number {n} talks about topic {n % 7}." for n in range(12)),
    " ".join(f"Word{n}" for n in range(60)),
    " ".join(f"This long text is cut at 256 tokens, and this is its part {n}." for n in range(40)),
]


def main():
    directory = sys.argv[1]
    transformer = models.Transformer(directory, max_seq_length=256)
    pooling = models.Pooling(transformer.get_word_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling, models.Normalize()], device="cpu")
    vectors = [model.encode(sentence, normalize_embeddings=True) for sentence in SENTENCES]
    json.dump(
        {
            "made_by": f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}, f32, CPU",
            "command": "python3 embeddings/golden/make.py models/all-MiniLM-L6-v2 > embeddings/golden/reference.json",
            "sentences": [
                {"text": text, "vector": [round(float(number), 7) for number in vector]}
                for text, vector in zip(SENTENCES, vectors)
            ],
        },
        sys.stdout,
        ensure_ascii=False,
    )
    print()


main()
