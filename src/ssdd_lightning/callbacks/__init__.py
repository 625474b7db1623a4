"""Lightning callbacks: predictions to disk, pictures to any logger."""
