#!/bin/sh
# Enqueue a job over HTTP, and ask for its state. API is http://127.0.0.1:3333, TOKEN one of
# PGQUEUE_API_TOKENS.
set -eu

# [enqueue]
curl -sS -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
     -d '{"type": "image.resize", "jobId": "img-http-1", "payload": {"image": "a.png", "width": 200}}' \
     "$API/api/jobs"
# [/enqueue]
# [get]
curl -sS -H "Authorization: Bearer $TOKEN" "$API/api/jobs/img-http-1"
# [/get]
