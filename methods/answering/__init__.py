"""What methods share that ask a language model with eyes and read its words: protocols, kept answers, masks."""
