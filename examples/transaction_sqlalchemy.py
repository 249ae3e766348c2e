"""The same with SQLAlchemy: its Session, or its Connection."""

import os

from images import Resize, resize
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from pgqueue import Client

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
engine = create_engine(url)

with Client.from_env() as client:
    # [transaction]
    with Session(engine) as session, session.begin():
        session.execute(text("INSERT INTO images (name) VALUES ('c.png')"))
        client.enqueue(resize, Resize("c.png", 200), connection=session)
    client.notify()
    # [/transaction]
