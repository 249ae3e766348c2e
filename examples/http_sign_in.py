"""Post a sign-in to the notification service, with nothing but the standard library."""

import json
import os
from urllib.error import HTTPError
from urllib.request import Request, urlopen

API = os.environ.get("API", "http://127.0.0.1:3333")

sign_in = {"userId": "u1", "email": "bat@example.com", "name": "Bat", "provider": "google"}
headers = {"Content-Type": "application/json"}
if token := os.environ.get("TOKEN"):
    headers["Authorization"] = f"Bearer {token}"
request = Request(
    f"{API}/api/jobs/signin-notification",
    data=json.dumps(sign_in).encode(),
    headers=headers,
)
try:
    with urlopen(request, timeout=3) as answer:
        print(answer.status, json.load(answer))
except HTTPError as error:  # 429 after ten sign-ins of one user in an hour, with Retry-After
    print(error.code, json.load(error)["message"])
