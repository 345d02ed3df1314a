.PHONY: schemas

# Writes schemas/*.json anew from the types of src/wire; read the difference before it is committed.
schemas:
	UPDATE_SCHEMAS=1 cargo test --lib schemas
